// T2 with NEON: a block is eight registers of weights or two of packed bytes; the last block of a
// ragged row through the scalar oracle.
#include <arm_neon.h>

#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_pack/t2_impl.h"

namespace tern::kernels {
namespace {

// Codes of plane `plane` of 16 packed bytes.
inline uint8x16_t Codes(const uint8_t* packed, int plane) {
  return (vld1q_u8(packed) >> static_cast<uint8_t>(2 * plane)) & 3;
}

}  // namespace

void PackT2RowNeon(const int8_t* weights, int64_t k, uint8_t* packed) {
  int64_t begin = 0;
  for (; begin + kT2BlockWeights <= k; begin += kT2BlockWeights, packed += kT2BlockBytes) {
    for (int64_t half = 0; half < kT2BlockBytes; half += 16) {
      uint8x16_t block = vdupq_n_u8(0);
      for (int64_t plane = 3; plane >= 0; --plane) {
        const int8x16_t w = vld1q_s8(weights + begin + plane * kT2BlockBytes + half);
        block = vorrq_u8(vshlq_n_u8(block, 2), vreinterpretq_u8_s8(vaddq_s8(w, vdupq_n_s8(1))));
      }
      vst1q_u8(packed + half, block);
    }
  }
  if (begin < k) PackT2RowRef(weights + begin, k - begin, packed);
}

void UnpackT2RowNeon(const uint8_t* packed, int64_t k, int8_t* weights) {
  int64_t begin = 0;
  for (; begin + kT2BlockWeights <= k; begin += kT2BlockWeights, packed += kT2BlockBytes) {
    for (int plane = 0; plane < 4; ++plane) {
      for (int64_t half = 0; half < kT2BlockBytes; half += 16) {
        const int8x16_t codes = vreinterpretq_s8_u8(Codes(packed + half, plane));
        vst1q_s8(weights + begin + plane * kT2BlockBytes + half, vsubq_s8(codes, vdupq_n_s8(1)));
      }
    }
  }
  if (begin < k) UnpackT2RowRef(packed, k - begin, weights + begin);
}

void DequantizeT2RowNeon(const uint8_t* packed, int64_t k, float scale, float* out) {
  int64_t begin = 0;
  for (; begin + kT2BlockWeights <= k; begin += kT2BlockWeights, packed += kT2BlockBytes) {
    for (int plane = 0; plane < 4; ++plane) {
      for (int64_t at = 0; at < kT2BlockBytes; at += 16) {
        const int8x16_t codes = vreinterpretq_s8_u8(Codes(packed + at, plane));
        const int8x16_t w = vsubq_s8(codes, vdupq_n_s8(1));
        const int16x8_t halves[2] = {vmovl_s8(vget_low_s8(w)), vmovl_s8(vget_high_s8(w))};
        float* to = out + begin + plane * kT2BlockBytes + at;
        for (int half = 0; half < 2; ++half, to += 8) {
          const int32x4_t low = vmovl_s16(vget_low_s16(halves[half]));
          const int32x4_t high = vmovl_s16(vget_high_s16(halves[half]));
          vst1q_f32(to, vmulq_n_f32(vcvtq_f32_s32(low), scale));
          vst1q_f32(to + 4, vmulq_n_f32(vcvtq_f32_s32(high), scale));
        }
      }
    }
  }
  if (begin < k) DequantizeT2RowRef(packed, k - begin, scale, out + begin);
}

}  // namespace tern::kernels
