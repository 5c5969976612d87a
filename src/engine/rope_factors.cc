// See rope_factors.h.
#include "engine/rope_factors.h"

#include <cmath>
#include <numbers>

#include "kernels/rope/rope.h"

namespace tern::engine {
namespace {

double Frequency(int64_t pair, int64_t head_dim, double theta) {
  return std::pow(theta, -2.0 * static_cast<double>(pair) / static_cast<double>(head_dim));
}

}  // namespace

std::vector<double> Llama3RopeFactors(const Llama3Scaling& s, int64_t head_dim, double theta) {
  std::vector<double> factors;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double wavelength = 2 * std::numbers::pi / Frequency(i, head_dim, theta);
    const double turns = s.original_max_position_embeddings / wavelength;  // In the first context
    if (turns > s.high_freq_factor) {
      factors.push_back(1);
    } else if (turns < s.low_freq_factor) {
      factors.push_back(s.factor);
    } else {
      const double smooth = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      factors.push_back(1 / ((1 - smooth) / s.factor + smooth));
    }
  }
  return factors;
}

void FillRopeTable(const ModelWeights& weights, int64_t capacity, float* cos_table,
                   float* sin_table) {
  const int64_t head_dim = weights.config.HeadDim(), half = head_dim / 2;
  const double theta = weights.config.rope_theta;
  const std::vector<double>& factors = weights.extras.rope_factors;
  if (factors.empty()) {
    kernels::RopeTable(capacity, head_dim, theta, cos_table, sin_table);
    return;
  }
  for (int64_t i = 0; i < half; ++i) {
    const double frequency = Frequency(i, head_dim, theta) / factors[static_cast<size_t>(i)];
    for (int64_t position = 0; position < capacity; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      cos_table[position * half + i] = static_cast<float>(std::cos(angle));
      sin_table[position * half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace tern::engine
