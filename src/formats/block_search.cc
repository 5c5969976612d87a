// See block_search.h.
#include "formats/block_search.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace tern::formats {
namespace {

constexpr float kLargestHalf = 65504.0f;
constexpr float kLeastAmax = 1e-15f;  // A block below is all zeros.

struct Extreme {
  float amax = 0, value = 0;  // The weight of largest magnitude, with its sign
};
Extreme ExtremeOf(const float* x, int64_t count) {
  Extreme out;
  for (int64_t i = 0; i < count; ++i) {
    const float magnitude = std::fabs(x[i]);
    if (magnitude > out.amax) out = {magnitude, x[i]};
  }
  return out;
}

uint8_t SymmetricCode(float x, int nmax) {
  return static_cast<uint8_t>(std::clamp(RoundToInt(x), -nmax, nmax - 1) + nmax);
}

// Weighted products of weights and the codes of a scale.
struct Products {
  float xl = 0, ll = 0;
};
Products ProductsOf(const float* x, const float* weights, int64_t count, float inverse, int nmax) {
  Products out;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t l = std::clamp(RoundToInt(inverse * x[i]), -nmax, nmax - 1);
    const float w = weights != nullptr ? weights[i] : x[i] * x[i], code = static_cast<float>(l);
    out.xl += w * x[i] * code;
    out.ll += w * code * code;
  }
  return out;
}

float ErrorOf(const float* x, const float* weights, const int32_t* codes, int64_t count,
              float scale, float min, bool absolute) {
  float error = 0;
  for (int64_t i = 0; i < count; ++i) {
    float difference = scale * static_cast<float>(codes[i]) + min - x[i];
    difference = absolute ? std::fabs(difference) : difference * difference;
    error += weights[i] * difference;
  }
  return error;
}

void CodesOf(const float* x, int64_t count, float inverse, float min, int nmax, int32_t* codes) {
  for (int64_t i = 0; i < count; ++i)
    codes[i] = std::clamp(RoundToInt(inverse * (x[i] - min)), 0, nmax);
}

// Least squares for given codes: x ~ scale * code + min. False when there is no solution.
struct Sums {
  float w = 0, x = 0;
};
bool Solve(const float* x, const float* weights, const int32_t* codes, int64_t count,
           const Sums& sums, float* scale, float* min) {
  float l = 0, ll = 0, xl = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float w = weights[i], code = static_cast<float>(codes[i]);
    l += w * code;
    ll += w * code * code;
    xl += w * code * x[i];
  }
  const float determinant = sums.w * ll - l * l;
  if (!(determinant > 0)) return false;
  *scale = (sums.w * xl - sums.x * l) / determinant;
  *min = (ll * sums.x - l * xl) / determinant;
  if (*min > 0) {
    *min = 0;
    *scale = xl / ll;
  }
  return true;
}

}  // namespace

float CheckedAmax(const float* x, int64_t count, float divisor) {
  // Without the sign, the bits of floats are in the order of their values, Inf and NaN last.
  int32_t bits = 0;
  for (int64_t i = 0; i < count; ++i)
    bits = std::max(bits, std::bit_cast<int32_t>(x[i]) & std::numeric_limits<int32_t>::max());
  const auto amax = std::bit_cast<float>(bits);
  for (int64_t i = 0; !std::isfinite(amax) && i < count; ++i) {
    TERN_CHECK_INPUT(std::isfinite(x[i]), "a row to be quantized holds ", x[i], " at element ", i,
                     " of a block; block types hold finite numbers only");
  }
  TERN_CHECK_INPUT(amax / divisor <= kLargestHalf, "a row to be quantized holds ", amax,
                   "; the scale of its block would be beyond fp16");
  return amax;
}

float SearchSymmetric(const float* x, const float* weights, int64_t count, int nmax,
                      uint8_t* codes) {
  std::fill_n(codes, count, uint8_t{0});
  const Extreme extreme = ExtremeOf(x, count);
  if (extreme.amax < kLeastAmax) return 0;
  const auto limit = static_cast<float>(nmax);
  float best_inverse = -limit / extreme.value;
  const Products first = ProductsOf(x, weights, count, best_inverse, nmax);
  float scale = first.ll != 0 ? first.xl / first.ll : 0.0f;
  float best = scale * first.xl;
  constexpr int kTrials = 9;
  for (int trial = -kTrials; trial <= kTrials; ++trial) {
    if (trial == 0) continue;
    const float inverse = -(limit + 0.1f * static_cast<float>(trial)) / extreme.value;
    const Products p = ProductsOf(x, weights, count, inverse, nmax);
    if (p.ll > 0 && p.xl * p.xl > best * p.ll) {
      scale = p.xl / p.ll;
      best = scale * p.xl;
      best_inverse = inverse;
    }
  }
  for (int64_t i = 0; i < count; ++i) codes[i] = SymmetricCode(best_inverse * x[i], nmax);
  return scale;
}

float SearchRounds(const float* x, int64_t count, int nmax, uint8_t* best_codes) {
  std::fill_n(best_codes, count, uint8_t{0});
  const Extreme extreme = ExtremeOf(x, count);
  if (extreme.amax < kLeastAmax) return 0;
  const float inverse = -static_cast<float>(nmax) / extreme.value;
  int32_t codes[kMaxSubBlock];
  for (int64_t i = 0; i < count; ++i)
    codes[i] = std::clamp(RoundToInt(inverse * x[i]), -nmax, nmax - 1);
  Products p = ProductsOf(x, nullptr, count, inverse, nmax);
  constexpr int kRounds = 5;
  for (int round = 0; round < kRounds; ++round) {
    bool changed = false;
    for (int64_t i = 0; i < count; ++i) {
      const float w = x[i] * x[i], code = static_cast<float>(codes[i]);
      Products without{p.xl - w * x[i] * code, p.ll - w * code * code};
      if (!(without.xl > 0)) continue;
      const int32_t l = std::clamp(RoundToInt(x[i] * without.ll / without.xl), -nmax, nmax - 1);
      if (l == codes[i]) continue;
      const auto next = static_cast<float>(l);
      without.xl += w * x[i] * next;
      without.ll += w * next * next;
      if (without.ll > 0 && without.xl * without.xl * p.ll > p.xl * p.xl * without.ll) {
        codes[i] = l;
        p = without;
        changed = true;
      }
    }
    if (!changed) break;
  }
  for (int64_t i = 0; i < count; ++i) best_codes[i] = static_cast<uint8_t>(codes[i] + nmax);
  return p.ll > 0 ? p.xl / p.ll : 0.0f;
}

namespace {

float SquaredError(const float* x, const float* weights, int64_t count, float inverse, int nmax) {
  const float scale = 1 / inverse;
  float error = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t l = std::min(nmax, RoundToInt(inverse * x[i]));
    const float difference = x[i] - scale * static_cast<float>(l);
    error += weights[i] * difference * difference;
  }
  return error;
}

}  // namespace

float SearchPositive(const float* x, const float* weights, int64_t count, int nmax,
                     uint8_t* best_codes) {
  std::fill_n(best_codes, count, uint8_t{0});
  const float max = std::max(*std::max_element(x, x + count), 0.0f);
  if (max < kLeastAmax) return 0;
  const auto limit = static_cast<float>(nmax);
  float inverse = limit / max, best = SquaredError(x, weights, count, inverse, nmax);
  constexpr int kTrials = 4;
  for (int trial = -kTrials; trial <= kTrials; ++trial) {
    if (trial == 0) continue;
    const float other = (0.1f * static_cast<float>(trial) + limit) / max;
    const float error = SquaredError(x, weights, count, other, nmax);
    if (error < best) {
      best = error;
      inverse = other;
    }
  }
  int32_t codes[kMaxSubBlock];
  Products p;
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = std::min(nmax, RoundToInt(inverse * x[i]));
    const float w = weights[i], code = static_cast<float>(codes[i]);
    p.xl += w * x[i] * code;
    p.ll += w * code * code;
  }
  constexpr int kRounds = 5;
  for (int round = 0; round < kRounds; ++round) {
    bool changed = false;
    for (int64_t i = 0; i < count; ++i) {
      const float w = weights[i], code = static_cast<float>(codes[i]);
      Products without{p.xl - w * x[i] * code, p.ll - w * code * code};
      if (!(without.xl > 0 && without.ll > 0)) continue;
      const int32_t l = std::min(nmax, RoundToInt(x[i] * without.ll / without.xl));
      if (l == codes[i]) continue;
      const auto next = static_cast<float>(l);
      without.xl += w * x[i] * next;
      without.ll += w * next * next;
      if (without.xl * without.xl * p.ll > p.xl * p.xl * without.ll) {
        codes[i] = l;
        p = without;
        changed = true;
      }
    }
    if (!changed) break;
  }
  for (int64_t i = 0; i < count; ++i) best_codes[i] = static_cast<uint8_t>(codes[i]);
  return p.ll > 0 ? p.xl / p.ll : 0.0f;
}

ScaleAndMin SearchWithMin(const float* x, const float* weights, int64_t count,
                          const MinSearch& search, uint8_t* best_codes) {
  std::fill_n(best_codes, count, uint8_t{0});
  float min = x[0], max = x[0];
  Sums sums{weights[0], weights[0] * x[0]};
  for (int64_t i = 1; i < count; ++i) {
    min = std::min(min, x[i]);
    max = std::max(max, x[i]);
    sums.w += weights[i];
    sums.x += weights[i] * x[i];
  }
  if (min > 0) min = 0;
  if (max == min) return {0, -min};
  const auto limit = static_cast<float>(search.nmax);
  int32_t codes[kMaxSubBlock];
  float inverse = limit / (max - min), scale = 1 / inverse;
  CodesOf(x, count, inverse, min, search.nmax, codes);
  std::copy_n(codes, count, best_codes);
  float best = ErrorOf(x, weights, codes, count, scale, min, search.absolute);
  for (int step = 0; step <= search.steps; ++step) {
    // From the best offset so far.
    inverse = (search.first + search.step * static_cast<float>(step) + limit) / (max - min);
    CodesOf(x, count, inverse, min, search.nmax, codes);
    float this_scale = 0, this_min = 0;
    if (!Solve(x, weights, codes, count, sums, &this_scale, &this_min)) continue;
    const float error = ErrorOf(x, weights, codes, count, this_scale, this_min, search.absolute);
    if (error < best) {
      best = error;
      scale = this_scale;
      min = this_min;
      std::copy_n(codes, count, best_codes);
    }
  }
  return {scale, -min};
}

}  // namespace tern::formats
