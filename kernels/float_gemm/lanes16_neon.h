// 16 lanes in four registers of NEON (see float_codes.h). Only for files compiled for it.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels/common/inline.h"

namespace tern::kernels {

struct Lanes16Neon {
  struct F {
    float32x4_t v[4];
  };
  struct I {
    int32x4_t v[4];
  };

  // Applies `f` to each of the four registers.
  template <class Body>
  static TERN_INLINE F Each(const Body& f) {
    return {f(0), f(1), f(2), f(3)};
  }

  static TERN_INLINE F Zero() { return Broadcast(0.0f); }
  static TERN_INLINE F Load(const float* p) {
    return Each([p](int i) { return vld1q_f32(p + 4 * i); });
  }
  static TERN_INLINE F LoadBytes(const uint8_t* p) {
    return Each([p](int i) { return vreinterpretq_f32_u8(vld1q_u8(p + 16 * i)); });
  }
  static TERN_INLINE void Store(float* p, const F& v) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, v.v[i]);
  }
  // 16 lanes to 8 to 4, as JoinLanes adds (common/join_four.h).
  static TERN_INLINE float32x4_t Fold(const F& v) {
    return vaddq_f32(vaddq_f32(v.v[0], v.v[2]), vaddq_f32(v.v[1], v.v[3]));
  }
  static TERN_INLINE F Broadcast(float v) {
    return Each([v](int) { return vdupq_n_f32(v); });
  }
  static TERN_INLINE F Fma(const F& a, const F& b, const F& c) {
    return Each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
  }
  static TERN_INLINE F Mul(const F& a, const F& b) {
    return Each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
  }
  static TERN_INLINE F Sub(const F& a, const F& b) {
    return Each([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
  }

  static TERN_INLINE F LoadHalves(const uint8_t* p) {
    return Each([p](int i) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i))); });
  }
  static TERN_INLINE F LoadBf16(const uint8_t* p) {
    return Each([p](int i) {
      const uint16x4_t bits = vreinterpret_u16_u8(vld1_u8(p + 8 * i));
      return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
    });
  }
  static TERN_INLINE F BroadcastHalf(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    const float32x4_t v = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits)));
    return {v, v, v, v};
  }

  static TERN_INLINE I LoadSigned(const uint8_t* p) {
    const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(p));
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    return {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)),
            vmovl_s16(vget_low_s16(high)), vmovl_s16(vget_high_s16(high))};
  }
  static TERN_INLINE I LoadNibbles(const uint8_t* p) {
    const uint8x8_t bytes = vld1_u8(p);
    const uint8x8x2_t codes = vzip_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4));
    const uint16x8_t low = vmovl_u8(codes.val[0]), high = vmovl_u8(codes.val[1]);
    const auto wide = [](uint16x4_t v) { return vreinterpretq_s32_u32(vmovl_u16(v)); };
    return {wide(vget_low_u16(low)), wide(vget_high_u16(low)), wide(vget_low_u16(high)),
            wide(vget_high_u16(high))};
  }
  // As fp16: 2^-8 of the value.
  static TERN_INLINE F LoadE4m3(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    const auto half = [](uint8x8_t codes) {
      const uint16x8_t wide = vmovl_u8(codes);
      return vorrq_u16(vshlq_n_u16(vandq_u16(wide, vdupq_n_u16(0x80)), 8),
                       vshlq_n_u16(vandq_u16(wide, vdupq_n_u16(0x7F)), 7));
    };
    const uint16x8_t low = half(vget_low_u8(bytes)), high = half(vget_high_u8(bytes));
    const auto value = [](uint16x4_t v) { return vcvt_f32_f16(vreinterpret_f16_u16(v)); };
    return {value(vget_low_u16(low)), value(vget_high_u16(low)), value(vget_low_u16(high)),
            value(vget_high_u16(high))};
  }
  static TERN_INLINE F ToFloat(const I& v) {
    return Each([&](int i) { return vcvtq_f32_s32(v.v[i]); });
  }
};

}  // namespace tern::kernels
