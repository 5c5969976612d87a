// fp16 and bfloat16 as bit patterns: conversion to and from fp32, round to nearest, ties to even.
// NaN stays NaN, values beyond the largest finite one become Inf, subnormals are kept.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace tern::formats {

inline float Fp16ToFp32(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16, magnitude = bits & 0x7FFFu;
  if (magnitude >= 0x7C00u)
    return std::bit_cast<float>(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);  // Inf, NaN
  // Exponent and mantissa move up; multiplying by 2^112 moves the bias from 15 to 127, subnormals
  // included. Exact.
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

// Two bytes of a file, at any address.
inline uint16_t LoadHalfBits(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}
inline float LoadFp16(const uint8_t* bytes) { return Fp16ToFp32(LoadHalfBits(bytes)); }

inline uint16_t Fp32ToFp16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000u,
                 magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);   // NaN, quiet
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // From 65520 on: Inf
  if (magnitude < 0x38800000u) {  // Below 2^-14: subnormal
    // Adding 0.5 aligns the mantissa so that the hardware rounds to multiples of 2^-24, to even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
  }
  const uint32_t odd = magnitude >> 13 & 1u;
  return static_cast<uint16_t>(sign | (magnitude - 0x38000000u + 0xFFFu + odd) >> 13);
}

inline float Bf16ToFp32(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

inline uint16_t Fp32ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
    return static_cast<uint16_t>(bits >> 16 | 0x40u);  // NaN, quiet
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace tern::formats
