// Chooses the next token from logits, by the steps of SamplingOptions (generate_options.h).
// Deterministic: a seeded counter-based stream, ties to the lowest id.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"
#include "engine/generate_options.h"
#include "kernels/top_k/top_k_cuda.h"

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

  // Of `choices` logits, how many of the highest decide: 1 (greedy), k (top-k), or all, where a
  // repetition penalty may lift any or nothing limits them.
  int64_t Deciding(int64_t choices) const;
  // What Next chooses from all logits, from the highest Deciding ones: the highest first, of equals
  // the lowest id first. Throws NumericError when the first id is below 0: LaunchTopK found no
  // choice.
  int32_t Pick(std::span<const kernels::TokenLogit> best);

 private:
  struct Candidate {
    double logit;
    int32_t id;
  };
  // Order of a heap whose top is the most probable token.
  static bool Below(const Candidate& a, const Candidate& b);
  static bool Above(const Candidate& a, const Candidate& b);

  void Penalize(std::span<const float> logits);
  int64_t TopK(int64_t choices) const;
  void KeepMostProbable();  // Top-k and top-p
  void KeepTopPOfSorted();
  int32_t Choose();
  void KeepMinP();
  int32_t Draw();

  SamplingOptions options_;
  RandomStream stream_;
  std::vector<int32_t> history_;       // Of the whole sequence, when there is a penalty
  std::vector<Candidate> candidates_;  // Of the token at work
};

}  // namespace tern::engine
