// fp16 as bit patterns, one source for scalar code and CUDA: the conversions of F16C bit for bit
// (round to nearest, ties to even; from 65520 on Inf; subnormals kept; NaN made quiet, the upper
// bits of its payload kept), so that scalar and SIMD kernels agree.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define TERN_HALF_FUNCTION __host__ __device__ __forceinline__
#else
#define TERN_HALF_FUNCTION inline __attribute__((always_inline))
#endif

namespace tern::kernels {

TERN_HALF_FUNCTION uint32_t HalfFloatBits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

TERN_HALF_FUNCTION float HalfBitsFloat(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

TERN_HALF_FUNCTION float FloatFromHalf(uint16_t half) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(half));
#else
  const uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7FFFu;
  if (magnitude > 0x7C00u) return HalfBitsFloat(sign | 0x7FC00000u | (magnitude & 0x3FFu) << 13);
  if (magnitude == 0x7C00u) return HalfBitsFloat(sign | 0x7F800000u);
  // Times 2^112: the bias goes from 15 to 127, for subnormals too. Exact.
  return HalfBitsFloat(HalfFloatBits(HalfBitsFloat(magnitude << 13) * 0x1p112f) | sign);
#endif
}

TERN_HALF_FUNCTION uint16_t HalfFromFloat(float value) {
#if defined(__CUDA_ARCH__)
  return __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t bits = HalfFloatBits(value), sign = bits >> 16 & 0x8000u,
                 magnitude = bits & 0x7FFFFFFFu;
  uint32_t half;
  if (magnitude > 0x7F800000u) {
    half = 0x7E00u | (magnitude >> 13 & 0x1FFu);
  } else if (magnitude >= 0x477FF000u) {
    half = 0x7C00u;
  } else if (magnitude < 0x38800000u) {
    // Below 2^-14: next to 0.5 the last bit of a float is 2^-24, so this addition rounds to it.
    half = HalfFloatBits(HalfBitsFloat(magnitude) + 0.5f) - 0x3F000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
#endif
}

// bfloat16, exactly.
TERN_HALF_FUNCTION float FloatFromBfloat(uint16_t bits) {
  return HalfBitsFloat(static_cast<uint32_t>(bits) << 16);
}

// The nearest bfloat16, ties to even; NaN stays NaN, made quiet.
TERN_HALF_FUNCTION uint16_t BfloatFromFloat(float value) {
  const uint32_t bits = HalfFloatBits(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  // Half of the dropped part, one less when the kept part is even.
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace tern::kernels
