// See generate.h.
#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/error.h"
#include "engine/sampler.h"
#include "engine/session.h"
#include "engine/stop_filter.h"

namespace tern::engine {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Rate(int64_t tokens, double seconds) {
  return static_cast<double>(tokens) / std::max(seconds, 1e-9);  // The clock's own resolution.
}

// BOS, where the model has one, and the prompt.
std::vector<int32_t> PromptTokens(const ModelWeights& weights, std::string_view prompt) {
  TERN_CHECK_INPUT(weights.tokenizer.has_value(), weights.source, " has no tokenizer");
  const text::Tokenizer& tokenizer = *weights.tokenizer;
  std::vector<int32_t> tokens;
  if (tokenizer.bos_id() >= 0) tokens.push_back(tokenizer.bos_id());
  const std::vector<int32_t> ids = tokenizer.Encode(prompt);
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  TERN_CHECK_INPUT(!tokens.empty(), "the prompt has no tokens; give it some text");
  const int64_t count = static_cast<int64_t>(tokens.size());
  const int64_t context = weights.config.context_length;
  TERN_CHECK_INPUT(count <= context, "the prompt has ", count, " tokens; the context of ",
                   weights.source, " holds ", context, ". Shorten the prompt by ", count - context,
                   " tokens or more");
  return tokens;
}

// make_session(capacity) gives a new sequence: Session or DeviceSession.
template <class MakeSession>
GenerateResult Run(const ModelWeights& weights, const MakeSession& make_session,
                   std::string_view prompt, const GenerateOptions& options,
                   const std::function<void(std::string_view)>& on_text) {
  if (options.max_tokens < 0)
    throw UsageError(
        StrCat("the number of new tokens is ", options.max_tokens, "; want 0 or more"));
  Sampler sampler(options.sampling);
  StopFilter filter(options.stop);
  const std::vector<int32_t> tokens = PromptTokens(weights, prompt);
  sampler.Remember(tokens);
  const text::Tokenizer& tokenizer = *weights.tokenizer;
  text::StreamDecoder decoder(tokenizer);
  for (const int32_t id : tokens) decoder.Push(id);  // Spaces depend on what came before
  const int64_t count = static_cast<int64_t>(tokens.size()),
                context = weights.config.context_length;
  // The last token is chosen and not run. Written so that no max_tokens overflows.
  auto session = make_session(count + std::min(options.max_tokens, context - count));
  // Models may have more rows than the tokenizer has pieces (padding): those are never chosen.
  const size_t choices =
      static_cast<size_t>(std::min<int64_t>(tokenizer.vocab_size(), weights.config.vocab_size));
  GenerateResult result;
  result.prompt_tokens = count;
  const auto emit = [&](const std::string& piece) {
    result.text += piece;
    if (on_text && !piece.empty()) on_text(piece);
  };

  double begin = Now();
  auto logits = session.Append(tokens);  // A vector, or a span that stays until the next
  result.prefill_seconds = Now() - begin;
  begin = Now();
  while (result.new_tokens < options.max_tokens) {
    const int32_t next = sampler.Next(std::span<const float>(logits).first(choices));
    if (weights.EndsText(next)) {
      result.end = EndReason::kEndOfText;
      break;
    }
    ++result.new_tokens;
    emit(filter.Push(decoder.Push(next)));
    if (filter.stopped()) break;
    if (result.new_tokens == options.max_tokens) break;
    if (session.size() == context) {
      result.end = EndReason::kContextFull;
      break;
    }
    logits = session.Append({&next, 1});
  }
  emit(filter.Push(decoder.Finish()));
  if (filter.stopped()) result.end = EndReason::kStopString;
  emit(filter.Finish());
  result.decode_seconds = Now() - begin;
  return result;
}

}  // namespace

std::string_view ToString(EndReason reason) {
  switch (reason) {
    case EndReason::kEndOfText:
      return "end_of_text";
    case EndReason::kStopString:
      return "stop_string";
    case EndReason::kTokenLimit:
      return "token_limit";
    case EndReason::kContextFull:
      return "context_full";
  }
  __builtin_unreachable();
}

double GenerateResult::PrefillRate() const { return Rate(prompt_tokens, prefill_seconds); }
double GenerateResult::DecodeRate() const { return Rate(new_tokens, decode_seconds); }

GenerateResult Generate(const Engine& engine, std::string_view prompt,
                        const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text) {
  return Run(
      engine.weights(), [&](int64_t capacity) { return Session(engine, capacity, options.cache); },
      prompt, options, on_text);
}

GenerateResult GenerateOnDevice(const DeviceModel& model, std::string_view prompt,
                                const GenerateOptions& options,
                                const std::function<void(std::string_view)>& on_text) {
  return Run(
      model.weights(),
      [&](int64_t capacity) { return DeviceSession(model, capacity, options.cache); }, prompt,
      options, on_text);
}

}  // namespace tern::engine
