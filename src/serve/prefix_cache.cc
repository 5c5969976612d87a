// See prefix_cache.h.
#include "serve/prefix_cache.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace tern::serve {
namespace {

constexpr size_t kMostKept = 256;  // Each is compared with every new prompt

}  // namespace

int64_t CommonPrefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t limit = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + static_cast<int64_t>(limit), b.begin()).first -
         a.begin();
}

void PrefixCache::Keep(std::span<const int32_t> tokens, engine::Sequence sequence) {
  TERN_CHECK(std::ssize(tokens) == sequence.size(), tokens.size(), " tokens of a sequence of ",
             sequence.size());
  const int64_t whole = sequence.size() / kernels::kKvPageTokens * kernels::kKvPageTokens;
  if (whole == 0) return;
  tokens = tokens.first(static_cast<size_t>(whole));
  for (auto at = kept_.begin(); at != kept_.end();) {
    const int64_t common = CommonPrefix(at->tokens, tokens);
    if (common == whole) {  // Nothing new
      kept_.splice(kept_.end(), kept_, at);
      return;
    }
    at = common == std::ssize(at->tokens) ? kept_.erase(at) : std::next(at);
  }
  sequence.Truncate(whole);
  if (kept_.size() == kMostKept) kept_.pop_front();
  kept_.push_back({{tokens.begin(), tokens.end()}, std::move(sequence)});
}

const engine::Sequence* PrefixCache::Find(std::span<const int32_t> tokens, int64_t* common) {
  auto best = kept_.end();
  *common = kernels::kKvPageTokens - 1;
  for (auto at = kept_.begin(); at != kept_.end(); ++at) {
    const int64_t length = CommonPrefix(at->tokens, tokens);
    if (length > *common) *common = length, best = at;
  }
  if (best == kept_.end()) {
    *common = 0;
    return nullptr;
  }
  kept_.splice(kept_.end(), kept_, best);
  return &kept_.back().sequence;
}

void PrefixCache::MakeFree(int64_t pages) {
  while (cache_.free_pages() < pages && !kept_.empty()) kept_.pop_front();
}

}  // namespace tern::serve
