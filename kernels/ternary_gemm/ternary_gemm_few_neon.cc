// Ternary product with NEON's dot product of bytes for up to four tokens: reads each packed weight
// once. Plane i of 16 packed bytes is (v >> 2 i) & 3, sixteen codes that meet the activations
// 32 i + (0 or 16) of the block; a shift of bytes brings no neighbour's bits.
#include <arm_neon.h>

#include "kernels/common/inline.h"
#include "kernels/ternary_gemm/ternary_gemm_impl.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {
namespace {

constexpr int64_t kPrefetchBytes = 8192;  // As in the other versions.

// A whole number of groups of R rows ahead: the rows of a group are read side by side.
inline int64_t Ahead(int64_t group_bytes) {
  const int64_t group = group_bytes > 0 ? group_bytes : 1;
  return (kPrefetchBytes + group - 1) / group * group;
}

// Half a block: 16 bytes of R rows times M tokens.
template <int R, int M>
TERN_INLINE void AddHalfBlock(const uint8_t* w, int64_t row_bytes, const int8_t* x, int64_t ldx,
                              int32x4_t (&acc)[M][R]) {
  uint8x16_t v[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) v[r] = vld1q_u8(w + r * row_bytes);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    int8x16_t a[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) a[m] = vld1q_s8(x + m * ldx + i * kT2BlockBytes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const uint8x16_t codes = (v[r] >> static_cast<uint8_t>(2 * i)) & 3;
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m)
        acc[m][r] = vdotq_s32(acc[m][r], vreinterpretq_s8_u8(codes), a[m]);
    }
  }
}

template <int R, int M>
void Rows(const TernaryGemmArgs& args, int64_t m_begin, int64_t n) {
  const int64_t row_bytes = T2RowBytes(args.k), ahead = Ahead(R * row_bytes);
  const uint8_t* w = args.w_t2 + n * row_bytes;
  const int8_t* x = args.x + m_begin * args.ldx;
  int32x4_t acc[M][R];
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) acc[m][r] = vdupq_n_s32(0);
  }
  for (int64_t byte = 0; byte < row_bytes; byte += kT2BlockBytes) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) __builtin_prefetch(w + r * row_bytes + byte + ahead, 0, 2);
    AddHalfBlock<R, M>(w + byte, row_bytes, x + byte * 4, args.ldx, acc);
    AddHalfBlock<R, M>(w + byte + 16, row_bytes, x + byte * 4 + 16, args.ldx, acc);
  }
  for (int m = 0; m < M; ++m) {
    for (int r = 0; r < R; ++r) {
      const int32_t exact = vaddvq_s32(acc[m][r]) - args.x_sum[m_begin + m];
      args.y[(m_begin + m) * args.ldy + n + r] =
          static_cast<float>(exact) * args.out_scale[m_begin + m];
    }
  }
}

template <int M>
void Tokens(const TernaryGemmArgs& args, const GemmRange& range) {
  int64_t n = range.n_begin;
  for (; n + 4 <= range.n_end; n += 4) Rows<4, M>(args, range.m_begin, n);
  for (; n < range.n_end; ++n) Rows<1, M>(args, range.m_begin, n);
}

}  // namespace

void TernaryGemmFewNeon(const TernaryGemmArgs& args, const GemmRange& range) {
  switch (range.m_end - range.m_begin) {
    case 1:
      return Tokens<1>(args, range);
    case 2:
      return Tokens<2>(args, range);
    case 3:
      return Tokens<3>(args, range);
    case 4:
      return Tokens<4>(args, range);
    default:
      return;
  }
}

}  // namespace tern::kernels
