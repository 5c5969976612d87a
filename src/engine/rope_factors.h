// Scaled RoPE as one list of factors: pair i of a head turns by position * theta^(-2i/E) /
// factor[i]. It covers linear interpolation (Chen et al., arXiv 2306.15595), the scaling of Llama
// 3.1 ("llama3" in config.json; in GGUF the tensor rope_freqs.weight, which holds these very
// factors) and nothing that also scales attention (YaRN, longrope).
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model_weights.h"

namespace tern::engine {

// Names and meaning as in config.json.
struct Llama3Scaling {
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  double original_max_position_embeddings = 8192;
};

// [head_dim / 2]. Wavelengths beyond original / low_freq_factor are slowed down by `factor`, those
// below original / high_freq_factor not at all; between them the frequency is a mean, linear in
// original / wavelength. REQUIRES: factor > 0, high_freq_factor > low_freq_factor > 0, original >
// 0, head_dim even.
std::vector<double> Llama3RopeFactors(const Llama3Scaling& scaling, int64_t head_dim, double theta);

// cos_table, sin_table: [capacity, E/2] of the model's angles, computed in fp64; without factors
// the table of kernels/rope.
void FillRopeTable(const ModelWeights& weights, int64_t capacity, float* cos_table,
                   float* sin_table);

}  // namespace tern::engine
