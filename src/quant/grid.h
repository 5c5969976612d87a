// The values that a code of a weight format can take, before its scale: integers of 2 to 8 bits, or
// small floats (OCP 8-bit floating point specification; OCP Microscaling Formats 1.0). One
// definition of rounding for fake quantization, post-training quantization and export; inline,
// because GPTQ rounds one weight at a time. Rounding is to nearest, ties to even, saturating.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace tern::quant {

struct Grid {
  float lo = -8, hi = 7;  // Least and largest value
  int fraction_bits = 0;  // Of small floats
  int min_exponent = 0;   // Of their least normal number
  bool integer = true;
};

inline constexpr Grid IntegerGrid(int bits) {
  const auto half = static_cast<float>(1 << (bits - 1));
  return {-half, half - 1, 0, 0, true};
}
inline constexpr Grid kE4m3Grid = {-448, 448, 3, -6, false};
inline constexpr Grid kE5m2Grid = {-57344, 57344, 2, -14, false};
inline constexpr Grid kE2m1Grid = {-6, 6, 1, 0, false};

// Half to even for |x| < 2^22: adding 1.5 * 2^23 leaves no fraction bits. rint() would be a call on
// processors without SSE4.1, and keep the loops from being vectorized.
inline float RoundHalfEven(float x) {
  constexpr float kMagic = 12582912.0f;
  return (x + kMagic) - kMagic;
}

// 2^floor(log2 |x|) for normal x, not below 2^min_exponent.
inline float PowerBelow(float x, int min_exponent) {
  const int exponent = static_cast<int>(std::bit_cast<uint32_t>(x) >> 23 & 0xFFu) - 127;
  return std::bit_cast<float>(static_cast<uint32_t>(std::max(exponent, min_exponent) + 127) << 23);
}

// The grid's value nearest to x. REQUIRES: x is no NaN.
inline float RoundToGrid(const Grid& grid, float x) {
  x = std::min(std::max(x, grid.lo), grid.hi);
  if (grid.integer) return RoundHalfEven(x);
  const float quantum =
      PowerBelow(x, grid.min_exponent) * (1.0f / static_cast<float>(1 << grid.fraction_bits));
  // Exact, since quantum is a power of two; small floats have a zero of each sign.
  return std::copysign(RoundHalfEven(x / quantum) * quantum, x);
}

// The grid's value below or above |x|, the upper one when `uniform` < (|x| - lower) / (upper -
// lower): of a uniform number in [0, 1) the expectation is x. REQUIRES: x is no NaN.
inline float RoundStochastic(const Grid& grid, float x, float uniform) {
  x = std::min(std::max(x, grid.lo), grid.hi);
  const float quantum = grid.integer ? 1.0f
                                     : PowerBelow(x, grid.min_exponent) *
                                           (1.0f / static_cast<float>(1 << grid.fraction_bits));
  const float steps = std::fabs(x) / quantum, lower = std::floor(steps);  // Exact: a power of two
  return std::copysign((steps - lower > uniform ? lower + 1 : lower) * quantum, x);
}

// Bits of a small float: sign, exponent, fraction from the left, in the low bits of a byte; the
// sign of E2M1 is bit 3. REQUIRES: value is on the grid.
inline uint8_t FloatBits(const Grid& grid, float value) {
  const float magnitude = std::fabs(value);
  const float power = PowerBelow(magnitude, grid.min_exponent);
  const int exponent = static_cast<int>(std::bit_cast<uint32_t>(power) >> 23) - 127;
  const auto steps =
      static_cast<int>(magnitude / power * static_cast<float>(1 << grid.fraction_bits));
  // A subnormal has fewer steps than 2^fraction_bits and the exponent field 0.
  const int bits = (exponent - grid.min_exponent) * (1 << grid.fraction_bits) + steps;
  const int sign_bit = grid.hi == kE2m1Grid.hi ? 8 : 128;
  return static_cast<uint8_t>(bits | (std::signbit(value) ? sign_bit : 0));
}

// The reverse of FloatBits. Codes beyond the largest value (NaN, Inf) have no meaning here.
inline float FloatOfBits(const Grid& grid, uint8_t code) {
  const int sign_bit = grid.hi == kE2m1Grid.hi ? 8 : 128;
  const int bits = code & (sign_bit - 1), fraction = 1 << grid.fraction_bits;
  const int field = bits >> grid.fraction_bits, steps = bits & (fraction - 1);
  const float value =
      field == 0 ? std::ldexp(static_cast<float>(steps), grid.min_exponent - grid.fraction_bits)
                 : std::ldexp(static_cast<float>(fraction + steps),
                              grid.min_exponent + field - 1 - grid.fraction_bits);
  return (code & sign_bit) != 0 ? -value : value;
}

}  // namespace tern::quant
