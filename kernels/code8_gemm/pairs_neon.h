// 32 codes in two halves of 16 and eight floats, each two registers of NEON (see codes8_vec.h).
// Only for files compiled for it, with the dot product of bytes.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels/code8_gemm/codes8_vec.h"
#include "kernels/common/join_four.h"

namespace tern::kernels {

struct PairsNeon {
  struct B {
    uint8x16_t v[2];
  };
  struct P {
    int32x4_t v[2];  // Partial sums of each half
  };
  struct F {
    float32x4_t v[2];
  };

  static TERN_INLINE B Load(const uint8_t* p) { return Halves(p, p + 16); }
  static TERN_INLINE B Halves(const uint8_t* p0, const uint8_t* p1) {
    return {{vld1q_u8(p0), vld1q_u8(p1)}};
  }
  template <int n, int mask>
  static TERN_INLINE uint8x16_t Bits(uint8x16_t v) {
    return (v >> static_cast<uint8_t>(n)) & static_cast<uint8_t>(mask);
  }
  // Each byte >> n & mask.
  template <int n, int mask>
  static TERN_INLINE B Shr(const B& b) {
    return {{Bits<n, mask>(b.v[0]), Bits<n, mask>(b.v[1])}};
  }
  template <int n>
  static TERN_INLINE B Shl(const B& b) {  // REQUIRES: no bit leaves its byte
    return {{vshlq_n_u8(b.v[0], n), vshlq_n_u8(b.v[1], n)}};
  }
  static TERN_INLINE B Or(const B& a, const B& b) {
    return {{vorrq_u8(a.v[0], b.v[0]), vorrq_u8(a.v[1], b.v[1])}};
  }
  // 16 bytes twice: in the first half bits 0 to 3 at 4 to 7, as they are in the second.
  static TERN_INLINE B LowToHigh(const uint8_t* p) {
    const uint8x16_t v = vld1q_u8(p);
    return {{vshlq_n_u8(v, 4), v}};
  }
  // 16 where a bit is set: the bits 16 h .. 16 h + 15 of w0, then those of w1.
  static TERN_INLINE uint8x16_t Sixteens16(uint32_t w) {
    const uint8x16_t bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bytes =
        vcombine_u8(vdup_n_u8(static_cast<uint8_t>(w)), vdup_n_u8(static_cast<uint8_t>(w >> 8)));
    return vandq_u8(vtstq_u8(bytes, bit), vdupq_n_u8(16));
  }
  template <int h>
  static TERN_INLINE B Sixteens(uint32_t w0, uint32_t w1) {
    return {{Sixteens16(w0 >> (16 * h)), Sixteens16(w1 >> (16 * h))}};
  }

  static TERN_INLINE P Dot(const P& sum, const B& codes, const int8_t* x) {
    return {{vdotq_s32(sum.v[0], vreinterpretq_s8_u8(codes.v[0]), vld1q_s8(x)),
             vdotq_s32(sum.v[1], vreinterpretq_s8_u8(codes.v[1]), vld1q_s8(x + 16))}};
  }
  // 32 codes times 32 activations. Codes of less than 8 bits are signed bytes too.
  template <int kBits>
  static TERN_INLINE P Dot1(const B& codes, const int8_t* x) {
    return Dot({{vdupq_n_s32(0), vdupq_n_s32(0)}}, codes, x);
  }
  template <int kBits>
  static TERN_INLINE P Dot2(const B& a, const B& b, const int8_t* x) {
    return Dot(Dot1<kBits>(a, x), b, x + 32);
  }
  // Lane i is the sum of the first half of argument i, lane i + 4 that of the second.
  template <int kBits, int kProducts>
  static TERN_INLINE P Join(const P& p0, const P& p1, const P& p2, const P& p3) {
    const auto half = [&](int h) {
      return vpaddq_s32(vpaddq_s32(p0.v[h], p1.v[h]), vpaddq_s32(p2.v[h], p3.v[h]));
    };
    return {{half(0), half(1)}};
  }

  static TERN_INLINE F LoadFloats(const float* p) { return {{vld1q_f32(p), vld1q_f32(p + 4)}}; }
  static TERN_INLINE F Everywhere(float v) { return {{vdupq_n_f32(v), vdupq_n_f32(v)}}; }
  static TERN_INLINE F Add(const F& a, const F& b) {
    return {{vaddq_f32(a.v[0], b.v[0]), vaddq_f32(a.v[1], b.v[1])}};
  }
  static TERN_INLINE F Mul(const F& a, const F& b) {
    return {{vmulq_f32(a.v[0], b.v[0]), vmulq_f32(a.v[1], b.v[1])}};
  }
  static TERN_INLINE F Fma(const F& a, const F& b, const F& c) {
    return {{vfmaq_f32(c.v[0], a.v[0], b.v[0]), vfmaq_f32(c.v[1], a.v[1], b.v[1])}};
  }
  static TERN_INLINE F MinusFma(const F& a, const F& b, const F& c) {  // c - a b
    return {{vfmsq_f32(c.v[0], a.v[0], b.v[0]), vfmsq_f32(c.v[1], a.v[1], b.v[1])}};
  }
  static TERN_INLINE F ToFloat(const P& p) {
    return {{vcvtq_f32_s32(p.v[0]), vcvtq_f32_s32(p.v[1])}};
  }
  static TERN_INLINE Quad Fold(const F& f) { return (Quad)vaddq_f32(f.v[0], f.v[1]); }
  static TERN_INLINE F FromHalves(Halves8 halves) {
    const auto bits = vreinterpretq_f16_s16(halves);
    return {{vcvt_f32_f16(vget_low_f16(bits)), vcvt_high_f32_f16(bits)}};
  }
  static TERN_INLINE F HalfEverywhere(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    const float32x4_t v = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits)));
    return {{v, v}};
  }
  // Bytes 8 half .. 8 half + 7.
  template <int half>
  static TERN_INLINE F FromUnsigned(Bytes16 bytes) {
    const uint16x8_t words = vmovl_u8(half == 0 ? vget_low_u8(bytes) : vget_high_u8(bytes));
    return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))),
             vcvtq_f32_u32(vmovl_u16(vget_high_u16(words)))}};
  }
  template <int half>
  static TERN_INLINE F FromSigned(Bytes16 bytes) {
    const int8x16_t v = vreinterpretq_s8_u8(bytes);
    const int16x8_t words = vmovl_s8(half == 0 ? vget_low_s8(v) : vget_high_s8(v));
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(words))),
             vcvtq_f32_s32(vmovl_s16(vget_high_s16(words)))}};
  }

  // For QuantizeInt8.
  static TERN_INLINE float LargestOf32(const float* p) {
    float32x4_t largest = vabsq_f32(vld1q_f32(p));
    for (int i = 4; i < 32; i += 4) largest = vmaxnmq_f32(largest, vabsq_f32(vld1q_f32(p + i)));
    return vmaxnmvq_f32(largest);
  }
  // q[i] = rint(p[i] * factor), and the sums of each 16.
  static TERN_INLINE void Round32(const float* p, float factor, int8_t* q, float* sums) {
    for (int h = 0; h < 2; ++h) {
      const auto round = [&](int i) {
        return vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(p + 16 * h + i), factor)));
      };
      const int8x8_t low = vmovn_s16(vcombine_s16(round(0), round(4)));
      const int8x8_t high = vmovn_s16(vcombine_s16(round(8), round(12)));
      const int8x16_t bytes = vcombine_s8(low, high);
      vst1q_s8(q + 16 * h, bytes);
      sums[h] = static_cast<float>(vaddlvq_s8(bytes));
    }
  }
};

}  // namespace tern::kernels
