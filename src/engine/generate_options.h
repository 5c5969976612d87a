// What a caller may ask of generation, and what comes back: plain data, for the command line, the
// recipe and the library (tern_engine.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/attention/attention.h"

namespace tern::engine {

// The steps, in the order of llama.cpp's default chain:
//   1. repetition penalty (Keskar et al., arXiv 1909.05858): the logit of each token among the last
//      ones of the sequence is divided by the penalty when above 0, else multiplied by it;
//   2. top-k: the k highest logits;
//   3. top-p (nucleus, Holtzman et al., arXiv 1904.09751): of these, the fewest whose probability
//      at temperature 1 reaches p;
//   4. min-p (Nguyen et al., arXiv 2407.01082): of these, those with at least min_p times the
//      probability of the most probable one;
//   5. temperature, and one draw.
// So the temperature changes how the kept tokens are drawn, never which ones are kept. Each step
// keeps one token at least. Greedy (temperature 0) is step 1 and then the highest logit.
struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // 0 to 1; 1: all
  uint64_t seed = 42;
  double min_p = 0;               // 0 to 1; 0: all
  double repetition_penalty = 1;  // Above 0; 1: none; below 1 favours repetition
  int64_t penalty_tokens = 64;    // How far back it looks, prompt included; 0: off, -1: all
};

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

}  // namespace tern::engine
