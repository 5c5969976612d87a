// Weight quantizer with NEON: a block of 128 weights to 32 packed bytes; a ragged block through a
// zero-padded copy.
#include <arm_neon.h>

#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/count_codes.h"
#include "kernels/ternary_quantize/ternary_quantize_impl.h"

namespace tern::kernels {
namespace {

// Weights of 4 elements as int32: clamping first gives what rounding first gives.
inline int32x4_t Ternary(const float* w, float inv_scale) {
  const float32x4_t scaled = vmulq_n_f32(vld1q_f32(w), inv_scale);
  return vcvtnq_s32_f32(vmaxq_f32(vminq_f32(scaled, vdupq_n_f32(1.0f)), vdupq_n_f32(-1.0f)));
}

// Codes of 16 consecutive weights, one a byte.
inline uint8x16_t Codes(const float* w, float inv_scale) {
  const int16x8_t low =
      vcombine_s16(vmovn_s32(Ternary(w, inv_scale)), vmovn_s32(Ternary(w + 4, inv_scale)));
  const int16x8_t high =
      vcombine_s16(vmovn_s32(Ternary(w + 8, inv_scale)), vmovn_s32(Ternary(w + 12, inv_scale)));
  const int8x16_t bytes = vcombine_s8(vmovn_s16(low), vmovn_s16(high));
  return vreinterpretq_u8_s8(vaddq_s8(bytes, vdupq_n_s8(1)));
}

inline void PackBlock(const float* w, float inv_scale, uint8_t* block) {
  for (int64_t half = 0; half < kT2BlockBytes; half += 16) {
    uint8x16_t packed = vdupq_n_u8(0);
    for (int64_t plane = 3; plane >= 0; --plane) {
      const uint8x16_t codes = Codes(w + plane * kT2BlockBytes + half, inv_scale);
      packed = vorrq_u8(vshlq_n_u8(packed, 2), codes);
    }
    vst1q_u8(block + half, packed);
  }
}

}  // namespace

TernaryCounts TernaryQuantizeRowsNeon(const float* w, int64_t row_begin, int64_t row_end, int64_t k,
                                      float inv_scale, uint8_t* t2, const uint8_t* previous) {
  const int64_t row_bytes = T2RowBytes(k);
  TernaryCounts counts;
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t byte = 0; byte < row_bytes; byte += kT2BlockBytes) {
      uint8_t block[kT2BlockBytes];
      float padded[kT2BlockWeights];
      const int64_t begin = byte * 4, at = row * row_bytes + byte;
      const float* from = w + row * k + begin;
      if (begin + kT2BlockWeights > k) {
        for (int64_t i = 0; i < kT2BlockWeights; ++i) padded[i] = begin + i < k ? from[i] : 0.0f;
        from = padded;
      }
      PackBlock(from, inv_scale, block);
      CountBlock(block, previous == nullptr ? nullptr : previous + at, counts);
      std::memcpy(t2 + at, block, kT2BlockBytes);
    }
  }
  counts.zeros -= (row_end - row_begin) * (T2PaddedK(k) - k);
  return counts;
}

}  // namespace tern::kernels
