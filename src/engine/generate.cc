// See generate.h.
#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/error.h"

namespace tern::engine {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Rate(int64_t tokens, double seconds) {
  return static_cast<double>(tokens) / std::max(seconds, 1e-9);  // The clock's own resolution.
}

}  // namespace

double GenerateResult::PrefillRate() const { return Rate(prompt_tokens, prefill_seconds); }
double GenerateResult::DecodeRate() const { return Rate(new_tokens, decode_seconds); }

GenerateResult Generate(const Engine& engine, std::string_view prompt,
                        const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text) {
  TERN_CHECK_INPUT(engine.weights().tokenizer.has_value(), engine.weights().source,
                   " has no tokenizer");
  if (options.max_tokens < 0)
    throw UsageError(
        StrCat("the number of new tokens is ", options.max_tokens, "; want 0 or more"));
  const text::Tokenizer& tokenizer = *engine.weights().tokenizer;
  std::vector<int32_t> tokens;
  if (tokenizer.bos_id() >= 0) tokens.push_back(tokenizer.bos_id());
  const std::vector<int32_t> prompt_ids = tokenizer.Encode(prompt);
  tokens.insert(tokens.end(), prompt_ids.begin(), prompt_ids.end());

  Session session(engine, static_cast<int64_t>(tokens.size()) + options.max_tokens);
  Sampler sampler(options.sampling);
  text::StreamDecoder decoder(tokenizer);
  for (const int32_t id : prompt_ids) decoder.Push(id);  // A character may begin in the prompt.
  // Models may have more rows than the tokenizer has pieces (padding): those are never chosen.
  const size_t choices =
      static_cast<size_t>(std::min<int64_t>(tokenizer.vocab_size(), engine.config().vocab_size));
  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(tokens.size());
  const auto emit = [&](const std::string& piece) {
    result.text += piece;
    if (on_text && !piece.empty()) on_text(piece);
  };

  double begin = Now();
  std::vector<float> logits = session.Append(tokens);
  result.prefill_seconds = Now() - begin;
  begin = Now();
  while (result.new_tokens < options.max_tokens) {
    const int32_t next = sampler.Next(std::span(logits).first(choices));
    if (next == tokenizer.eos_id()) {
      result.ended = true;
      break;
    }
    ++result.new_tokens;
    emit(decoder.Push(next));
    if (session.size() == session.capacity()) break;
    logits = session.Append({&next, 1});
  }
  emit(decoder.Finish());
  result.decode_seconds = Now() - begin;
  return result;
}

}  // namespace tern::engine
