// Chooses the next token from logits, by the steps of SamplingOptions (generate_options.h).
// Deterministic: a seeded counter-based stream, ties to the lowest id.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"
#include "engine/generate_options.h"

namespace tern::engine {

class Sampler {
 public:
  // Throws UsageError (option, value, range) for options out of their ranges, and for NaN.
  explicit Sampler(const SamplingOptions& options);

  // Tells of tokens that were not chosen here: the prompt, for the repetition penalty.
  void Remember(std::span<const int32_t> tokens);

  // The next token, which it remembers. Throws NumericError when a logit is NaN or +Inf, or all are
  // -Inf.
  int32_t Next(std::span<const float> logits);

 private:
  struct Candidate {
    double logit;
    int32_t id;
  };
  // Order of a heap whose top is the most probable token.
  static bool Below(const Candidate& a, const Candidate& b);

  void Penalize(std::span<const float> logits);
  void KeepMostProbable();
  void KeepMinP();
  int32_t Draw();

  SamplingOptions options_;
  RandomStream stream_;
  std::vector<int32_t> history_;       // Of the whole sequence, when there is a penalty
  std::vector<Candidate> candidates_;  // Of the token at work
};

}  // namespace tern::engine
