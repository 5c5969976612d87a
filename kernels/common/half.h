// fp16 to fp32 without instructions for it, for scalar oracles.
#pragma once

#include <cstdint>
#include <cstring>

namespace tern::kernels {

// The IEEE half at p (two bytes, little-endian), exactly.
static inline float HalfToFloat(const uint8_t* p) {
  const uint32_t half = p[0] | uint32_t{p[1]} << 8;
  const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u,
                 fraction = half & 1023u;
  uint32_t bits = sign | 0x7F800000u | fraction << 13;  // Inf and NaN
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent < 31) bits = sign | (exponent + 112) << 23 | fraction << 13;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace tern::kernels
