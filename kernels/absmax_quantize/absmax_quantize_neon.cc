// Activation quantizer with NEON, ragged ends through a zero-padded copy.
#include <arm_neon.h>

#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/absmax_quantize/absmax_quantize_impl.h"

namespace tern::kernels {
namespace {

float AbsMax(const float* x, int64_t k) {
  float32x4_t max = vdupq_n_f32(0.0f);
  int64_t i = 0;
  // maxnm takes the number where the other one is NaN, as std::max(amax, NaN) does.
  for (; i + 4 <= k; i += 4) max = vmaxnmq_f32(max, vabsq_f32(vld1q_f32(x + i)));
  float result = vmaxnmvq_f32(max);
  for (; i < k; ++i) {
    const float magnitude = __builtin_fabsf(x[i]);
    result = magnitude > result ? magnitude : result;
  }
  return result;
}

// 16 products with the scale, rounded half to even, saturated to int8.
inline int8x16_t QuantizeBlock(const float* x, float scale) {
  int32x4_t r[4];
  for (int i = 0; i < 4; ++i) r[i] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), scale));
  const int16x8_t low = vcombine_s16(vqmovn_s32(r[0]), vqmovn_s32(r[1]));
  const int16x8_t high = vcombine_s16(vqmovn_s32(r[2]), vqmovn_s32(r[3]));
  return vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
}

}  // namespace

void AbsmaxQuantizeRowNeon(const float* x, int64_t k, int64_t padded_k, int8_t* q, float* gamma,
                           int32_t* sum) {
  const float amax = AbsMax(x, k);
  *gamma = amax < kActivationFloor ? kActivationFloor : amax;
  const float scale = 127.0f / *gamma;
  int32x4_t total = vdupq_n_s32(0);
  for (int64_t i = 0; i < padded_k; i += 16) {
    float padded[16];
    const float* from = x + i;
    if (i + 16 > k) {
      for (int64_t j = 0; j < 16; ++j) padded[j] = i + j < k ? x[i + j] : 0.0f;
      from = padded;
    }
    const int8x16_t bytes = QuantizeBlock(from, scale);
    vst1q_s8(q + i, bytes);
    total = vdotq_s32(total, bytes, vdupq_n_s8(1));
  }
  *sum = vaddvq_s32(total);
}

void DequantizeRowNeon(const int8_t* q, int64_t k, float scale, float* out) {
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    const int16x8_t codes = vmovl_s8(vld1_s8(q + i));
    const float32x4_t low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(codes)));
    const float32x4_t high = vcvtq_f32_s32(vmovl_s16(vget_high_s16(codes)));
    vst1q_f32(out + i, vmulq_n_f32(low, scale));
    vst1q_f32(out + i + 4, vmulq_n_f32(high, scale));
  }
  for (; i < k; ++i) out[i] = scale * static_cast<float>(q[i]);
}

}  // namespace tern::kernels
