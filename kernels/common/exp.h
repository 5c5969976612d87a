// exp in fp32 as one source for a scalar float, the vectors of common/vec.h and CUDA, so that every
// instruction set gives the same bits: only IEEE additions and multiplications, no FMA, no table.
// Cody-Waite reduction x = n ln2 + r, |r| <= ln2/2, ln2 split so that n * kLn2High is exact; then
// the Taylor coefficients up to r^7 (remainder below r^8/8! = 5e-9 of the result, less than a tenth
// of an ulp); then 2^n in two factors, so that the result runs smoothly into subnormals, 0 and Inf.
// Error <= 1 ulp for normal results (tested against std::exp in fp64). NaN stays NaN.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define TERN_EXP_FUNCTION __host__ __device__ __forceinline__
#else
#define TERN_EXP_FUNCTION inline __attribute__((always_inline))
#endif

namespace tern::kernels {

// F: float or a vector of floats; U: uint32_t or the vector of as many uint32_t.
template <class F, class U>
TERN_EXP_FUNCTION F ExpOf(F x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLn2High = 0.693359375f;  // 9 significant bits: times |n| <= 152 exact.
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRounder =
      12582912.0f;             // 1.5 * 2^23: adding it rounds to an integer, half to even.
  const F high = F{} + 89.0f;  // exp(89) is Inf, exp(-105) is 0 in fp32.
  const F low = F{} - 105.0f;
  x = high < x ? high : x;  // In this order NaN passes.
  x = x < low ? low : x;
  const F shifted = x * kLog2E + kRounder;
  const F n = shifted - kRounder;
  const F r = (x - n * kLn2High) - n * kLn2Low;
  F p = r * (1.0f / 5040.0f) + (1.0f / 720.0f);
  p = p * r + (1.0f / 120.0f);
  p = p * r + (1.0f / 24.0f);
  p = p * r + (1.0f / 6.0f);
  p = p * r + 0.5f;
  p = (p * (r * r) + r) + 1.0f;
  U n_bits;
  std::memcpy(&n_bits, &shifted, sizeof(n_bits));
  // The low bits of `shifted` are n in two's complement; + 512 keeps the halving below free of
  // signs.
  n_bits = n_bits - 0x4B400000u + 512u;
  const U half = n_bits >> 1;
  const U first_bits = (half - 256u + 127u) << 23;
  const U second_bits = (n_bits - half - 256u + 127u) << 23;
  F first, second;
  std::memcpy(&first, &first_bits, sizeof(first));
  std::memcpy(&second, &second_bits, sizeof(second));
  return p * first * second;
}

TERN_EXP_FUNCTION float Exp(float x) { return ExpOf<float, uint32_t>(x); }

}  // namespace tern::kernels
