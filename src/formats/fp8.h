// FP8 E4M3FN (OCP 8-bit floating point specification, revision 1.0): sign, 4 bits of exponent with
// bias 7, 3 bits of mantissa; no infinities, 0x7F and 0xFF are NaN, the largest number is 448.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

namespace tern::formats {

constexpr float Fp8E4m3ToFp32(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  // Numbers below 2^-6 have no leading 1.
  float value = static_cast<float>(exponent == 0 ? mantissa : mantissa + 8);
  for (int e = exponent == 0 ? 1 : exponent; e < 10; ++e) value *= 0.5f;
  for (int e = exponent; e > 10; --e) value *= 2.0f;
  return bits >> 7 ? -value : value;
}

// [code], for rows.
inline constexpr std::array<float, 256> kFp8E4m3Values = [] {
  std::array<float, 256> values{};
  for (int code = 0; code < 256; ++code)
    values[static_cast<size_t>(code)] = Fp8E4m3ToFp32(static_cast<uint8_t>(code));
  return values;
}();

}  // namespace tern::formats
