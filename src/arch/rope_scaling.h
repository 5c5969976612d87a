// Scaled RoPE as a part of ModelConfig. Every scaling that is run here comes to one list of
// factors: pair i of a head turns by position * theta^(-2i/E) / factor[i]. It covers linear
// interpolation (Chen et al., arXiv 2306.15595) and the scaling of Llama 3.1 ("llama3" in
// config.json; in GGUF the tensor rope_freqs.weight, which holds these very factors), and nothing
// that also scales attention (YaRN, longrope).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace tern {

enum class RopeScalingKind {
  kNone,
  kLinear,   // `factor` for every pair
  kLlama3,   // `factor` for slow pairs, 1 for fast ones, between them a mean
  kFactors,  // `factors`, of a file that does not say where they come from
};

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // kLlama3; names as in config.json
  double original_context = 8192;                    // kLlama3, tokens
  std::vector<double> factors = {};                  // kFactors: [E/2], above 0

  bool operator==(const RopeScaling&) const = default;
};

// [head_dim / 2], or empty when all are 1. kLlama3: wavelengths beyond original / low_freq_factor
// are slowed down by `factor`, those below original / high_freq_factor not at all; between them the
// frequency is a mean, linear in original / wavelength. REQUIRES: factor > 0, high_freq_factor >
// low_freq_factor > 0, original_context > 0, head_dim even.
std::vector<double> RopeFactors(const RopeScaling& scaling, int64_t head_dim, double theta);

// Factors read from a file, as kLlama3 where the published setting (factor the largest of them,
// frequencies 1 and 4) with an original context of a power of two gives the same numbers in fp32,
// else as kFactors.
RopeScaling ScalingOfFactors(std::vector<double> factors, double theta);

std::string_view ToString(RopeScalingKind kind);  // "none", "linear", "llama3", "factors"

}  // namespace tern
