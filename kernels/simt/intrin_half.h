// Arithmetic on pairs of 16-bit floats in one word (the lower half first), and their conversions:
// PTX under nvcc (sm_80 and later), exact emulation elsewhere. Each operation rounds once, to
// nearest; subnormals are kept.
#pragma once

#include "kernels/simt/intrin.h"

#if !defined(__CUDACC__)
#include "kernels/simt/small_float.h"
#endif

namespace tern::simt {

#if !defined(__CUDACC__)
// each(i) gives half i as fp64.
template <class Encode, class Each>
inline uint32_t PackHalves(const Encode& encode, const Each& each) {
  return encode(each(0)) | static_cast<uint32_t>(encode(each(1))) << 16;
}
inline double F16Half(uint32_t pair, int i) {
  return kernels::FloatFromHalf(static_cast<uint16_t>(pair >> (16 * i)));
}
inline double Bf16Half(uint32_t pair, int i) {
  return kernels::FloatFromBfloat(static_cast<uint16_t>(pair >> (16 * i)));
}
#endif

// (bits & mask) | value in one instruction: written in C++, two constants make two.
TERN_DEVICE uint32_t AndOr(uint32_t bits, uint32_t mask, uint32_t value) {
#if defined(__CUDACC__)
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;\n" : "=r"(d) : "r"(bits), "r"(mask), "r"(value));
  return d;
#else
  return (bits & mask) | value;
#endif
}

TERN_DEVICE uint32_t SubtractF16x2(uint32_t a, uint32_t b) {
#if defined(__CUDACC__)
  uint32_t d;
  asm("sub.f16x2 %0, %1, %2;\n" : "=r"(d) : "r"(a), "r"(b));
  return d;
#else
  return PackHalves(EncodeF16, [&](int i) { return F16Half(a, i) - F16Half(b, i); });
#endif
}

// a * b + c.
TERN_DEVICE uint32_t MultiplyAddF16x2(uint32_t a, uint32_t b, uint32_t c) {
#if defined(__CUDACC__)
  uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;\n" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#else
  return PackHalves(EncodeF16,
                    [&](int i) { return F16Half(a, i) * F16Half(b, i) + F16Half(c, i); });
#endif
}

TERN_DEVICE uint32_t MultiplyAddBf16x2(uint32_t a, uint32_t b, uint32_t c) {
#if defined(__CUDACC__)
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;\n" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#else
  return PackHalves(EncodeBf16,
                    [&](int i) { return Bf16Half(a, i) * Bf16Half(b, i) + Bf16Half(c, i); });
#endif
}

// Two floats rounded to bfloat16, `low` in the lower half.
TERN_DEVICE uint32_t PackBf16(float low, float high) {
#if defined(__CUDACC__)
  uint32_t d;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(d) : "f"(high), "f"(low));
  return d;
#else
  return PackHalves(EncodeBf16, [&](int i) { return static_cast<double>(i == 0 ? low : high); });
#endif
}

TERN_DEVICE float FloatFromF16(uint16_t bits) {
#if defined(__CUDACC__)
  float value;
  asm("cvt.f32.f16 %0, %1;\n" : "=f"(value) : "h"(bits));
  return value;
#else
  return kernels::FloatFromHalf(bits);
#endif
}

TERN_DEVICE float FloatFromBf16(uint16_t bits) {
#if defined(__CUDACC__)
  return __uint_as_float(static_cast<uint32_t>(bits) << 16);
#else
  return kernels::FloatFromBfloat(bits);
#endif
}

// a * b + c, rounded once.
TERN_DEVICE float MultiplyAdd(float a, float b, float c) {
#if defined(__CUDACC__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}

}  // namespace tern::simt
