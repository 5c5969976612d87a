// 4-bit product with NEON: the 16 lanes of the sum are four registers; codes are shifted, masked,
// freed of the zero point as integers and converted.
#include <arm_neon.h>

#include "kernels/common/half.h"
#include "kernels/w4a16/w4a16_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kPrefetchBytes = 2048;  // As in the AVX-512 version.

inline float Scale(const W4A16Args& args, int64_t at) {
  if (args.scale_type == Float16Type::kBf16) return FloatFromBfloat(args.scales_GN[at]);
  const float16x4_t half = vreinterpret_f16_u16(vdup_n_u16(args.scales_GN[at]));
  return vgetq_lane_f32(vcvt_f32_f16(half), 0);
}

// 16 lanes to one: halves added, as common/lanes.h states.
inline float Join(const float32x4_t (&v)[4]) {
  const float32x4_t four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

template <int e, int T>
inline void AddSteps(const uint32x4_t (&words)[4], int32x4_t zero, const float* x,
                     int64_t token_step, float32x4_t (&part)[T][4]) {
  if constexpr (e < kW4Steps) {
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter) {
      const uint32x4_t codes = (words[quarter] >> W4Shift(e)) & 15u;
      const float32x4_t weights = vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(codes), zero));
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const float32x4_t a = vld1q_f32(x + t * token_step + 16 * e + 4 * quarter);
        part[t][quarter] = vfmaq_f32(part[t][quarter], a, weights);
      }
    }
    AddSteps<e + 1, T>(words, zero, x, token_step, part);
  }
}

template <int T>
inline void AddGroup(const uint8_t* w, int zero, float scale, const float* x, int64_t token_step,
                     float32x4_t (&total)[T][4]) {
  uint32x4_t words[4];
  float32x4_t part[T][4];
#pragma GCC unroll 4
  for (int quarter = 0; quarter < 4; ++quarter) {
    words[quarter] = vreinterpretq_u32_u8(vld1q_u8(w + 16 * quarter));
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) part[t][quarter] = vdupq_n_f32(0.0f);
  }
  AddSteps<0, T>(words, vdupq_n_s32(zero), x, token_step, part);
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter)
      total[t][quarter] = vfmaq_n_f32(total[t][quarter], part[t][quarter], scale);
  }
}

template <int T>
void Rows(const W4A16Args& args, int64_t m_begin, const float* x, int64_t n_begin, int64_t n_end) {
  const int64_t groups = W4Groups(args.k), token_step = groups * kW4Group;
  for (int64_t n = n_begin; n < n_end; ++n) {
    const uint8_t* w = args.w + n * groups * kW4GroupBytes;
    float32x4_t total[T][4];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      for (auto& sum : total[t]) sum = vdupq_n_f32(0.0f);
    }
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t at = group * args.n + n;
      __builtin_prefetch(w + group * kW4GroupBytes + kPrefetchBytes);
      AddGroup<T>(w + group * kW4GroupBytes, args.zeros_GN == nullptr ? 8 : args.zeros_GN[at],
                  Scale(args, at), x + group * kW4Group, token_step, total);
    }
    for (int t = 0; t < T; ++t) args.y[(m_begin + t) * args.ldy + n] = Join(total[t]);
  }
}

}  // namespace

void W4A16RowsNeon(const W4A16Args& args, int64_t m_begin, int tokens, const float* reordered,
                   int64_t n_begin, int64_t n_end) {
  switch (tokens) {
    case 1:
      return Rows<1>(args, m_begin, reordered, n_begin, n_end);
    case 2:
      return Rows<2>(args, m_begin, reordered, n_begin, n_end);
    default:
      return Rows<4>(args, m_begin, reordered, n_begin, n_end);
  }
}

}  // namespace tern::kernels
