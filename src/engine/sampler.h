// Chooses the next token from logits: greedy, temperature, top-k and top-p (nucleus, Holtzman et
// al., arXiv 1904.09751). Deterministic: a seeded counter-based stream, ties to the lowest id.
#pragma once

#include <cstdint>
#include <span>

#include "base/random.h"

namespace tern::engine {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // Keep the k most probable; 0: all
  double top_p = 1;        // Then the fewest whose probability reaches p (one at least)
  uint64_t seed = 42;
};

class Sampler {
 public:
  // Throws UsageError for a negative temperature or top_k, or a top_p outside of [0, 1].
  explicit Sampler(const SamplingOptions& options);

  // Throws NumericError when a logit is NaN or +Inf, or all are -Inf.
  int32_t Next(std::span<const float> logits);

 private:
  SamplingOptions options_;
  RandomStream stream_;
};

}  // namespace tern::engine
