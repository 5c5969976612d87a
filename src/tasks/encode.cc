// See encode.h.
#include "tasks/encode.h"

#include <algorithm>

#include "base/error.h"

namespace tern::tasks {
namespace {

const text::Tokenizer& TokenizerOf(const ModelScorer& scorer) {
  TERN_CHECK_INPUT(scorer.tokenizer(), scorer.source(),
                   " has no tokenizer, which is needed to evaluate on text");
  return *scorer.tokenizer();
}

// White space of Unicode beyond ASCII, as Python's str.rstrip takes it: U+0085, U+00A0, U+1680,
// U+2000 to U+200A, U+2028, U+2029, U+202F, U+205F, U+3000.
bool IsWideSpace(std::string_view c) {
  if (c.size() == 2) return c == "\xc2\x85" || c == "\xc2\xa0";
  if (c.size() != 3) return false;
  if (c.substr(0, 2) == "\xe2\x80") {
    const auto last = static_cast<unsigned char>(c[2]);
    return last <= 0x8a || last == 0xa8 || last == 0xa9 || last == 0xaf;
  }
  return c == "\xe1\x9a\x80" || c == "\xe2\x81\x9f" || c == "\xe3\x80\x80";
}

// Bytes of `text` without the white space at its end.
size_t TrimmedSize(std::string_view text) {
  size_t size = text.size();
  while (size > 0) {
    const auto byte = static_cast<unsigned char>(text[size - 1]);
    if (byte == ' ' || (byte >= 0x09 && byte <= 0x0d) || (byte >= 0x1c && byte <= 0x1f)) {
      --size;
      continue;
    }
    if (byte < 0x80) break;
    size_t begin = size - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
    if (!IsWideSpace(text.substr(begin, size - begin))) break;
    size = begin;
  }
  return size;
}

}  // namespace

Encoder::Encoder(const ModelScorer& scorer, bool bos)
    : scorer_(scorer), tokenizer_(TokenizerOf(scorer)), bos_(bos) {
  if (bos && tokenizer_.bos_id() < 0)
    throw UsageError(StrCat("--bos yes, but texts of ", scorer.source(),
                            " begin with no BOS by its tokenizer's own rule; use --bos auto"));
}

std::vector<int32_t> Encoder::Text(std::string_view text) const {
  std::vector<int32_t> ids = tokenizer_.Encode(text);
  if (bos_) ids.insert(ids.begin(), tokenizer_.bos_id());
  return ids;
}

ScoreRequest Encoder::Pair(std::string context, std::string continuation) const {
  ScoreRequest request;
  int64_t context_size = 1;
  if (context.empty()) {
    const int32_t start = tokenizer_.bos_id() >= 0 ? tokenizer_.bos_id() : tokenizer_.eos_id();
    TERN_CHECK_INPUT(start >= 0, "an empty context, and the tokenizer of ", scorer_.source(),
                     " has neither BOS nor EOS to stand for it");
    request.tokens = tokenizer_.Encode(continuation);
    request.tokens.insert(request.tokens.begin(), start);
  } else {
    const size_t trimmed = TrimmedSize(context);
    continuation.insert(0, context.substr(trimmed));
    context.resize(trimmed);
    request.tokens = Text(context + continuation);
    context_size = static_cast<int64_t>(Text(context).size());
    // White space alone, without BOS: nothing comes before the continuation.
    if (context_size == 0) return Pair("", continuation);
  }
  const auto size = static_cast<int64_t>(request.tokens.size());
  TERN_CHECK_INPUT(size > context_size, "the choice \"", continuation.substr(0, 60),
                   "\" has no token of its own: it is encoded as a part of its context");
  const int64_t excess = size - (scorer_.max_length() + 1);
  TERN_CHECK_INPUT(excess < context_size, "a choice has ", size - context_size,
                   " tokens; a text may have ", scorer_.max_length());
  if (excess > 0) request.tokens.erase(request.tokens.begin(), request.tokens.begin() + excess);
  request.first_scored = context_size - std::max<int64_t>(excess, 0);
  return request;
}

GenerateRequest Encoder::Prompt(std::string_view prompt, int64_t max_tokens,
                                std::vector<std::string> stop) const {
  GenerateRequest request{Text(prompt), max_tokens, std::move(stop)};
  const int64_t room = scorer_.max_length() - max_tokens;
  TERN_CHECK_INPUT(room > 0, "answers of up to ", max_tokens, " tokens do not fit into texts of ",
                   scorer_.max_length(), " tokens");
  const int64_t excess = static_cast<int64_t>(request.tokens.size()) - room;
  if (excess > 0) request.tokens.erase(request.tokens.begin(), request.tokens.begin() + excess);
  return request;
}

ScoreRequest Encoder::Cut(const std::vector<int32_t>& ids, const Window& window,
                          const PerplexityProtocol& protocol) const {
  ScoreRequest request{{ids.begin() + window.begin, ids.begin() + window.end},
                       window.first_scored - window.begin};
  if (bos_ && protocol.rule == WindowRule::kLlamaCpp) request.tokens[0] = tokenizer_.bos_id();
  return request;
}

}  // namespace tern::tasks
