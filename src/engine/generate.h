// Text from a model: prompt in, streamed whole UTF-8 pieces out.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "engine/sampler.h"

namespace tern::engine {

struct GenerateOptions {
  int64_t max_tokens = 64;
  SamplingOptions sampling;
};

struct GenerateResult {
  std::string text;  // Without the prompt
  int64_t prompt_tokens = 0, new_tokens = 0;
  bool ended = false;  // The model said end of text; else the limit or the context ended it
  double prefill_seconds = 0, decode_seconds = 0;
  double PrefillRate() const;  // Prompt tokens a second
  double DecodeRate() const;   // New tokens a second
};

// Runs BOS + prompt, then new tokens until EOS, max_tokens or the end of the context. `on_text`
// gets each whole piece. Throws InputError when the model has no tokenizer, the prompt is no UTF-8
// or does not fit, UsageError for sampling options out of range or a negative max_tokens,
// NumericError (Sampler).
GenerateResult Generate(const Engine& engine, std::string_view prompt,
                        const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text);

}  // namespace tern::engine
