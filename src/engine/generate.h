// Text from a model: prompt in, streamed whole UTF-8 pieces out.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "engine/sampler.h"
#include "kernels/attention/attention.h"

namespace tern::engine {

struct GenerateOptions {
  int64_t max_tokens = 64;
  SamplingOptions sampling;
  kernels::KvType cache = kernels::KvType::kF16;  // Of keys and values
  std::vector<std::string> stop;  // The text ends before the first of these in it (stop_filter.h)
};

enum class EndReason {
  kEndOfText,    // The model said so
  kStopString,   // One of the options
  kTokenLimit,   // max_tokens
  kContextFull,  // The model's context
};
// "end_of_text", "stop_string", "token_limit", "context_full".
std::string_view ToString(EndReason reason);

struct GenerateResult {
  std::string text;  // Without the prompt and the stop string
  int64_t prompt_tokens = 0, new_tokens = 0;
  EndReason end = EndReason::kTokenLimit;
  double prefill_seconds = 0, decode_seconds = 0;
  double PrefillRate() const;  // Prompt tokens a second
  double DecodeRate() const;   // New tokens a second
};

// Runs BOS + prompt, then new tokens until one of EndReason. Stop strings are looked for in the new
// text only, and may span tokens. `on_text` gets each whole piece as soon as it cannot be part of a
// stop string. Throws InputError when the model has no tokenizer, the prompt is no UTF-8, has no
// tokens or does not fit into the context, UsageError for sampling options out of range, an empty
// stop string or a negative max_tokens, NumericError (Sampler).
GenerateResult Generate(const Engine& engine, std::string_view prompt,
                        const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text);

}  // namespace tern::engine
