// See greedy_text.h.
#include "tasks/greedy_text.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace tern::tasks {
namespace {

// Whether greedy decoding would choose `target`.
bool IsGreedy(const float* logits, int64_t v, int32_t target) {
  const float value = logits[target];
  bool beaten = false;
  for (int64_t j = 0; j < target; ++j) beaten |= logits[j] >= value;
  for (int64_t j = target + 1; j < v; ++j) beaten |= logits[j] > value;
  return !beaten;
}

}  // namespace

TokenScore ScoreOf(const float* logits, int64_t v, int32_t target) {
  float loss = 0;
  kernels::CrossEntropyLoss(logits, &target, 1, v, v, &loss, SerialFor);
  return {-loss, IsGreedy(logits, v, target)};
}

GreedyText::GreedyText(const GenerateRequest& request, const text::Tokenizer& tokenizer,
                       std::vector<int32_t> stop_tokens, int64_t max_length)
    : tokenizer_(tokenizer),
      stop_tokens_(std::move(stop_tokens)),
      filter_(request.stop),
      decoder_(tokenizer) {
  const auto size = static_cast<int64_t>(request.tokens.size());
  // The last token needs no room: it is no input any more.
  left_ = std::min(request.max_tokens, max_length - size + 1);
  for (const int32_t id : request.tokens) decoder_.Push(id);  // Spaces depend on these
}

bool GreedyText::Take(std::span<const float> logits, const std::string& source) {
  const auto choices = std::min(static_cast<size_t>(tokenizer_.vocab_size()), logits.size());
  size_t best = 0;
  for (size_t i = 1; i < choices; ++i)
    if (logits[i] > logits[best]) best = i;
  if (!std::isfinite(logits[best]))
    throw NumericError(StrCat(source, " gives logits that are not finite"));
  last_ = static_cast<int32_t>(best);
  if (last_ == tokenizer_.eos_id() || std::ranges::count(stop_tokens_, last_) > 0) return false;
  text_ += filter_.Push(decoder_.Push(last_));
  return --left_ > 0 && !filter_.stopped();
}

std::string GreedyText::Finish() {
  text_ += filter_.Push(decoder_.Finish());
  text_ += filter_.Finish();
  return std::move(text_);
}

}  // namespace tern::tasks
