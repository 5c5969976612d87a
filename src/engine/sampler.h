// Chooses the next token from logits. The steps, in the order of llama.cpp's default chain:
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
// Deterministic: a seeded counter-based stream, ties to the lowest id.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"

namespace tern::engine {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // 0 to 1; 1: all
  uint64_t seed = 42;
  double min_p = 0;               // 0 to 1; 0: all
  double repetition_penalty = 1;  // Above 0; 1: none; below 1 favours repetition
  int64_t penalty_tokens = 64;    // How far back it looks, prompt included; 0: off, -1: all
};

class Sampler {
 public:
  // Throws UsageError (option, value, range) for options out of the ranges above, and for NaN.
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
