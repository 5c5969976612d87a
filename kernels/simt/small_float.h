// 16-bit floats in the emulator: exact decoding, and rounding from fp64 to nearest, ties to even.
// Host code only.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/half.h"

namespace tern::simt {

// The bits of `value` in a format of one sign bit, `exponent_bits` and `fraction_bits` after IEEE
// 754 (subnormals, infinities, NaN). fp64 holds every exact product and sum of the callers'
// operands, or more than twice their bits, so the rounding is the only one that counts.
inline uint16_t EncodeSmallFloat(double value, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, infinite = (1 << exponent_bits) - 1;
  const auto sign =
      static_cast<uint16_t>(std::signbit(value) ? 1 << (exponent_bits + fraction_bits) : 0);
  const double size = std::fabs(value);
  const int one = 1 << fraction_bits;  // The hidden bit.
  if (std::isnan(value)) return static_cast<uint16_t>(infinite << fraction_bits | one / 2);
  int exponent = 0;
  if (size != 0.0 && !std::isinf(size)) std::frexp(size, &exponent);  // In [2^(e-1), 2^e).
  int biased = exponent - 1 + bias;
  if (biased < 1 || size == 0.0) biased = 1;  // Subnormals share the smallest exponent.
  const double units = std::nearbyint(std::ldexp(size, fraction_bits - (biased - bias)));
  // A carry into the exponent is an addition; without the hidden bit the number is subnormal.
  const int64_t bits = std::isinf(size) || biased >= infinite
                           ? int64_t{infinite} << fraction_bits
                           : (int64_t{biased - 1} << fraction_bits) + static_cast<int64_t>(units);
  const int64_t most = int64_t{infinite} << fraction_bits;
  return static_cast<uint16_t>(sign | (bits > most ? most : bits));
}

inline uint16_t EncodeF16(double value) { return EncodeSmallFloat(value, 5, 10); }
inline uint16_t EncodeBf16(double value) { return EncodeSmallFloat(value, 8, 7); }

}  // namespace tern::simt
