// See rope_scaling.h.
#include "arch/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace tern {
namespace {

std::vector<double> Llama3Factors(const RopeScaling& s, int64_t head_dim, double theta) {
  std::vector<double> factors;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    const double wavelength = 2 * std::numbers::pi * std::pow(theta, exponent);
    const double turns = s.original_context / wavelength;  // In the first context
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

}  // namespace

std::vector<double> RopeFactors(const RopeScaling& scaling, int64_t head_dim, double theta) {
  switch (scaling.kind) {
    case RopeScalingKind::kNone:
      return {};
    case RopeScalingKind::kLinear:
      return std::vector<double>(static_cast<size_t>(head_dim / 2), scaling.factor);
    case RopeScalingKind::kLlama3:
      return Llama3Factors(scaling, head_dim, theta);
    case RopeScalingKind::kFactors:
      TERN_CHECK(static_cast<int64_t>(scaling.factors.size()) == head_dim / 2,
                 scaling.factors.size(), " factors for heads of ", head_dim);
      return scaling.factors;
  }
  __builtin_unreachable();
}

RopeScaling ScalingOfFactors(std::vector<double> factors, double theta) {
  RopeScaling llama3{RopeScalingKind::kLlama3};
  llama3.factor = *std::max_element(factors.begin(), factors.end());
  for (llama3.original_context = 1 << 4; llama3.original_context <= 1 << 24;
       llama3.original_context *= 2) {
    const auto want = Llama3Factors(llama3, 2 * static_cast<int64_t>(factors.size()), theta);
    // The writer's own arithmetic was fp32: a few of its roundings.
    const bool same = std::equal(factors.begin(), factors.end(), want.begin(),
                                 [](double a, double b) { return std::fabs(a - b) <= 1e-5 * b; });
    if (same) return llama3;
  }
  RopeScaling out{RopeScalingKind::kFactors};
  out.factors = std::move(factors);
  return out;
}

std::string_view ToString(RopeScalingKind kind) {
  switch (kind) {
    case RopeScalingKind::kNone:
      return "none";
    case RopeScalingKind::kLinear:
      return "linear";
    case RopeScalingKind::kLlama3:
      return "llama3";
    case RopeScalingKind::kFactors:
      return "factors";
  }
  __builtin_unreachable();
}

}  // namespace tern
