// Attention over a paged cache on vectors of 4 floats.
#include <arm_neon.h>

#include "kernels/attention/attention_impl.h"
#include "kernels/attention/attention_vec.h"

namespace tern::kernels {
namespace {

struct Simd {
  static constexpr int kWidth = 4;
  using F = VecF<4>;

  static TERN_ATTENTION_INLINE F MulAdd(F a, F b, F c) { return vfmaq_f32(c, a, b); }

  static TERN_ATTENTION_INLINE F Widen(const float* p) { return Load<4>(p); }
  static TERN_ATTENTION_INLINE F Widen(const uint16_t* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
  }
  static TERN_ATTENTION_INLINE F Widen(const int8_t* p) {
    int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof(bytes));
    const int16x8_t halves = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(halves)));
  }
  static TERN_ATTENTION_INLINE void Narrow(F v, uint16_t* p) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
  }
};

}  // namespace

void AttendSegmentNeon(const SegmentArgs& args, const SegmentState& out) {
  AttentionVec<Simd>::Attend(args, out);
}

void WriteKvHeadNeon(const float* x, int64_t head_width, KvType type, void* row, float* scale) {
  AttentionVec<Simd>::Write(x, head_width, type, row, scale);
}

}  // namespace tern::kernels
