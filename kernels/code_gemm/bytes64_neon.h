// 64 codes as bytes and 16 lanes of floats, each four registers of NEON (see codes_vec.h). Only for
// files compiled for it, with the dot product of bytes.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels/code_gemm/codes_vec.h"
#include "kernels/code_gemm/int16_tokens.h"
#include "kernels/common/inline.h"

namespace tern::kernels {

struct Bytes64Neon {
  struct B {
    uint8x16_t v[4];
  };
  struct F {
    float32x4_t v[4];
  };
  struct I {
    int32x4_t v[4];
  };

  // {f(0), f(1), f(2), f(3)}: one register after the other.
  template <class T, class Body>
  static TERN_INLINE T Each(const Body& f) {
    return {{f(0), f(1), f(2), f(3)}};
  }

  static TERN_INLINE B Or(const B& a, const B& b) {
    return Each<B>([&](int i) { return vorrq_u8(a.v[i], b.v[i]); });
  }
  template <int n>
  static TERN_INLINE B Shl(const B& b) {  // REQUIRES: no bit leaves its byte
    return Each<B>([&](int i) { return vshlq_n_u8(b.v[i], n); });
  }
  template <int n, int mask>
  static TERN_INLINE uint8x16_t Bits(uint8x16_t v) {
    return (v >> static_cast<uint8_t>(n)) & static_cast<uint8_t>(mask);
  }
  template <int n0, int n1, int mask>
  static TERN_INLINE B Planes32(const uint8_t* p) {
    const uint8x16_t a = vld1q_u8(p), b = vld1q_u8(p + 16);
    return {{Bits<n0, mask>(a), Bits<n0, mask>(b), Bits<n1, mask>(a), Bits<n1, mask>(b)}};
  }
  template <int n, int mask>
  static TERN_INLINE B Shr64(const uint8_t* p) {
    return Each<B>([p](int i) { return Bits<n, mask>(vld1q_u8(p + 16 * i)); });
  }
  static TERN_INLINE B Nibbles16(const uint8_t* p0, const uint8_t* p1) {
    const uint8x16_t a = vld1q_u8(p0), b = vld1q_u8(p1);
    return {{Bits<0, 15>(a), Bits<4, 15>(a), Bits<0, 15>(b), Bits<4, 15>(b)}};
  }
  // 16 where a bit of `word` is set, for its 16 bits from `shift` on.
  static TERN_INLINE uint8x16_t Sixteens16(uint32_t word, int shift) {
    const uint8x16_t bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const auto low = static_cast<uint8_t>(word >> shift);
    const auto high = static_cast<uint8_t>(word >> (shift + 8));
    const uint8x16_t bytes = vcombine_u8(vdup_n_u8(low), vdup_n_u8(high));
    return vandq_u8(vtstq_u8(bytes, bit), vdupq_n_u8(16));
  }
  static TERN_INLINE B Sixteens(uint32_t w0, uint32_t w1) {
    return {{Sixteens16(w0, 0), Sixteens16(w0, 16), Sixteens16(w1, 0), Sixteens16(w1, 16)}};
  }

  // Codes are below 64: signed bytes too.
  static TERN_INLINE I Dot(const B& codes, const int8_t* high, const int8_t* low) {
    return Each<I>([&](int i) {
      const int8x16_t c = vreinterpretq_s8_u8(codes.v[i]);
      const int32x4_t sum = vdotq_s32(vdupq_n_s32(0), c, vld1q_s8(high + 16 * i));
      return vdotq_s32(vshlq_n_s32(sum, 8), c, vld1q_s8(low + 16 * i));
    });
  }

  static TERN_INLINE float Half(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))), 0);
  }
  static TERN_INLINE F Zero() { return Broadcast(0.0f); }
  static TERN_INLINE F Load(const float* p) {
    return Each<F>([p](int i) { return vld1q_f32(p + 4 * i); });
  }
  static TERN_INLINE F LoadAny(const float* p) { return Load(p); }
  static TERN_INLINE void Store(float* p, const F& v) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, v.v[i]);
  }
  // 16 lanes to 8 to 4, as JoinLanes adds (common/join_four.h).
  static TERN_INLINE float32x4_t Fold(const F& v) {
    return vaddq_f32(vaddq_f32(v.v[0], v.v[2]), vaddq_f32(v.v[1], v.v[3]));
  }
  static TERN_INLINE F Broadcast(float v) {
    return Each<F>([v](int) { return vdupq_n_f32(v); });
  }
  static TERN_INLINE float FirstLane(const F& v) { return vgetq_lane_f32(v.v[0], 0); }
  static TERN_INLINE F Fma(const F& a, const F& b, const F& c) {
    return Each<F>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
  }
  static TERN_INLINE F Mul(const F& a, const F& b) {
    return Each<F>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
  }
  static TERN_INLINE F ToFloat(const I& v) {
    return Each<F>([&](int i) { return vcvtq_f32_s32(v.v[i]); });
  }
  static TERN_INLINE F Doubled(Halves8 halves) {
    const auto bits = vreinterpretq_f16_s16(halves);
    const float32x4_t low = vcvt_f32_f16(vget_low_f16(bits)), high = vcvt_high_f32_f16(bits);
    return {{vzip1q_f32(low, low), vzip2q_f32(low, low), vzip1q_f32(high, high),
             vzip2q_f32(high, high)}};
  }
  static TERN_INLINE F FromUnsigned(Bytes16 bytes) {
    const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
    return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
             vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
             vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
             vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
  }
  static TERN_INLINE F FromSigned(Bytes16 bytes) {
    const int8x16_t v = vreinterpretq_s8_u8(bytes);
    const int16x8_t low = vmovl_s8(vget_low_s8(v)), high = vmovl_s8(vget_high_s8(v));
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
             vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
             vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
  }
  // Lane l becomes lane 4 c + l / 4.
  template <int c>
  static TERN_INLINE F Spread(const F& f) {
    const float32x4_t v = f.v[c];
    return {{vdupq_laneq_f32(v, 0), vdupq_laneq_f32(v, 1), vdupq_laneq_f32(v, 2),
             vdupq_laneq_f32(v, 3)}};
  }

  // Of ScalesOfBlocks: lanes in their order, each block's scale in two of them.
  static TERN_INLINE F Blocks8(Halves8 eight) { return Doubled(eight); }
  template <int c>
  static TERN_INLINE F SpreadBlocks(F scales) {
    return Spread<c>(scales);
  }
  static TERN_INLINE F BlockLanes(F scales) { return scales; }
  static TERN_INLINE F BlockLanesInOrder(F lanes) { return lanes; }
  static TERN_INLINE const float* BlockSums(const Int16Block& x) { return x.sums; }
  static TERN_INLINE const int8_t* BlockHigh(const Int16Block& x) { return x.high; }
  static TERN_INLINE const int8_t* BlockLow(const Int16Block& x) { return x.low; }

  // Lane l becomes lane 2 c + l / 8.
  template <int c>
  static TERN_INLINE F Spread32(const F& f) {
    constexpr int first = 2 * c % 4;
    const float32x4_t a = vdupq_laneq_f32(f.v[c / 2], first);
    const float32x4_t b = vdupq_laneq_f32(f.v[c / 2], first + 1);
    return {{a, a, b, b}};
  }
  // The fp16 at p in the lanes 0 to 7, minus the next one in the others.
  static TERN_INLINE F HalvesOf(const uint8_t* p) {
    const float32x4_t a = vdupq_n_f32(Half(p)), b = vdupq_n_f32(-Half(p + 2));
    return {{a, a, b, b}};
  }

  // For QuantizeInt16.
  static TERN_INLINE F Max(const F& a, const F& b) {
    return Each<F>([&](int i) { return vmaxnmq_f32(a.v[i], b.v[i]); });
  }
  static TERN_INLINE F Abs(const F& f) {
    return Each<F>([&](int i) { return vabsq_f32(f.v[i]); });
  }
  static TERN_INLINE float MaxLane(const F& f) {
    return vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(f.v[0], f.v[1]), vmaxnmq_f32(f.v[2], f.v[3])));
  }
  static TERN_INLINE void StoreBytes(const I& n, int8_t* p) {
    const int16x8_t low = vcombine_s16(vmovn_s32(n.v[0]), vmovn_s32(n.v[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(n.v[2]), vmovn_s32(n.v[3]));
    vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
  }
  // Rounds 16 floats and stores their bytes; returns their sum.
  static TERN_INLINE float SplitBytes(const F& f, int8_t* high, int8_t* low) {
    const I q = Each<I>([&](int i) { return vcvtnq_s32_f32(f.v[i]); });
    const I h = Each<I>([&](int i) { return vshrq_n_s32(vaddq_s32(q.v[i], vdupq_n_s32(128)), 8); });
    const I l = Each<I>([&](int i) { return vsubq_s32(q.v[i], vshlq_n_s32(h.v[i], 8)); });
    StoreBytes(h, high);
    StoreBytes(l, low);
    const int32x4_t sum = vaddq_s32(vaddq_s32(q.v[0], q.v[1]), vaddq_s32(q.v[2], q.v[3]));
    return static_cast<float>(vaddvq_s32(sum));
  }
};

}  // namespace tern::kernels
