// See generate.h.
#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <span>
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

// Where Run gets its tokens from: a sequence that is appended to and gives the next choice.
class CpuSteps {
 public:
  CpuSteps(const Engine& engine, int64_t capacity, int64_t choices, kernels::KvType cache)
      : session_(engine, capacity, cache), choices_(static_cast<size_t>(choices)) {}
  void Append(std::span<const int32_t> tokens) { logits_ = session_.Append(tokens); }
  int32_t Choose(Sampler* sampler) { return sampler->Next(std::span(logits_).first(choices_)); }
  int64_t size() const { return session_.size(); }

 private:
  Session session_;
  size_t choices_;
  std::vector<float> logits_;
};

// Where a few of the highest logits decide, only they leave the device.
class DeviceSteps {
 public:
  DeviceSteps(const DeviceModel& model, const Sampler& sampler, DeviceSessionOptions options)
      : deciding_(sampler.Deciding(options.choices)),
        choices_(static_cast<size_t>(options.choices)),
        session_(model, WithTopK(options)) {}
  void Append(std::span<const int32_t> tokens) {
    if (FewDecide()) {
      best_ = session_.AppendTop(tokens);
    } else {
      logits_ = session_.Append(tokens);
    }
  }
  int32_t Choose(Sampler* sampler) {
    return FewDecide() ? sampler->Pick(best_) : sampler->Next(logits_.first(choices_));
  }
  int64_t size() const { return session_.size(); }

 private:
  // All of a small vocabulary are not few: Pick knows no penalty and draws in another order.
  bool FewDecide() const {
    return deciding_ <= kernels::kTopKMost && deciding_ < static_cast<int64_t>(choices_);
  }
  DeviceSessionOptions WithTopK(DeviceSessionOptions options) const {
    options.top_k = FewDecide() ? deciding_ : 1;
    return options;
  }

  int64_t deciding_;
  size_t choices_;
  DeviceSession session_;
  std::span<const kernels::TokenLogit> best_;
  std::span<const float> logits_;
};

// make_steps(capacity, choices, sampler) gives a new sequence: CpuSteps or DeviceSteps.
template <class MakeSteps>
GenerateResult Run(const ModelWeights& weights, const MakeSteps& make_steps,
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
  // Models may have more rows than the tokenizer has pieces (padding): those are never chosen.
  const int64_t choices = std::min<int64_t>(tokenizer.vocab_size(), weights.config.vocab_size);
  // The last token is chosen and not run. Written so that no max_tokens overflows.
  auto steps = make_steps(count + std::min(options.max_tokens, context - count), choices, sampler);
  GenerateResult result;
  result.prompt_tokens = count;
  const auto emit = [&](const std::string& piece) {
    result.text += piece;
    if (on_text && !piece.empty()) on_text(piece);
  };

  double begin = Now();
  steps.Append(tokens);
  result.prefill_seconds = Now() - begin;
  begin = Now();
  while (result.new_tokens < options.max_tokens) {
    const int32_t next = steps.Choose(&sampler);
    if (weights.EndsText(next)) {
      result.end = EndReason::kEndOfText;
      break;
    }
    ++result.new_tokens;
    emit(filter.Push(decoder.Push(next)));
    if (filter.stopped()) break;
    if (result.new_tokens == options.max_tokens) break;
    if (steps.size() == context) {
      result.end = EndReason::kContextFull;
      break;
    }
    steps.Append({&next, 1});
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
      engine.weights(),
      [&](int64_t capacity, int64_t choices, const Sampler&) {
        return CpuSteps(engine, capacity, choices, options.cache);
      },
      prompt, options, on_text);
}

GenerateResult GenerateOnDevice(const DeviceModel& model, std::string_view prompt,
                                const GenerateOptions& options,
                                const std::function<void(std::string_view)>& on_text) {
  return Run(
      model.weights(),
      [&](int64_t capacity, int64_t choices, const Sampler& sampler) {
        return DeviceSteps(model, sampler, {capacity, options.cache, choices});
      },
      prompt, options, on_text);
}

}  // namespace tern::engine
