// How ggml finds the scales of blocks (make_qx_quants, make_q3_quants and make_qkx2_quants of
// ggml-quants.c): a few scales around the one of the largest weight, each improved by least squares
// for the codes it gives, the one with the least weighted error. In fp32 and in that order of sums,
// so that the bytes are those of llama-quantize. codes[count]: of the scale that was found, 0 ..
// 2 nmax - 1 or 0 .. nmax; blocks hold them where a scale is rounded to 0.
#pragma once

#include <cstdint>

namespace tern::formats {

inline constexpr int64_t kMaxSubBlock = 32;

// Half to even for |x| < 2^22.
inline int32_t RoundToInt(float x) {
  constexpr float kMagic = 12582912.0f;
  return static_cast<int32_t>((x + kMagic) - kMagic);
}

// Largest magnitude. Throws InputError for NaN and Inf, and when amax / divisor is beyond fp16.
float CheckedAmax(const float* x, int64_t count, float divisor);

// x ~ scale * (code - nmax), codes of -nmax .. nmax - 1; 0 for a block of zeros. weights[count], or
// null: x^2.
float SearchSymmetric(const float* x, const float* weights, int64_t count, int nmax,
                      uint8_t* codes);

// x ~ scale * code, x >= 0, codes of 0 .. nmax, improved in up to 5 rounds (make_qp_quants).
float SearchPositive(const float* x, const float* weights, int64_t count, int nmax, uint8_t* codes);

// The same, each code improved in up to 5 rounds.
float SearchRounds(const float* x, int64_t count, int nmax, uint8_t* codes);

struct ScaleAndMin {
  float scale = 0, min = 0;  // x ~ scale * code - min, min >= 0
};
struct MinSearch {
  int nmax;
  float first, step;  // Of the ranges tried, in codes beyond nmax
  int steps;
  bool absolute;  // Absolute instead of squared errors
};
ScaleAndMin SearchWithMin(const float* x, const float* weights, int64_t count,
                          const MinSearch& search, uint8_t* codes);

}  // namespace tern::formats
