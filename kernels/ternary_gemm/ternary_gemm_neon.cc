// Ternary product with NEON's dot product of bytes, many tokens.
//
//   panel: [k/4][8 rows][4 k]      tile: 8 rows x 8 tokens = 16 registers of int32 sums
//   each 16 k: 8 loads of codes, 8 of activations (a register holds four steps of a token, taken by
//   lane), 64 sdot
#include <arm_neon.h>

#include "kernels/common/inline.h"
#include "kernels/ternary_gemm/ternary_gemm_impl.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {
namespace {

constexpr int64_t kRows = kPanelRowsNeon;
constexpr int64_t kTokens = 8;
constexpr int64_t kStepBytes = kRows * 4;

// 16 bytes of four rows' T2 blocks to codes: out[(8 i + j) * kStepBytes] = bytes of k = 32 i + 4 j
// .. + 3 for the four rows, j = 0 .. 3.
TERN_INLINE void UnpackWords(const uint8_t* const* rows, int64_t at, uint8_t* out) {
  uint32x4_t r[4];
  for (int i = 0; i < 4; ++i) r[i] = vreinterpretq_u32_u8(vld1q_u8(rows[i] + at));
  const uint64x2_t t[4] = {
      vreinterpretq_u64_u32(vtrn1q_u32(r[0], r[1])), vreinterpretq_u64_u32(vtrn2q_u32(r[0], r[1])),
      vreinterpretq_u64_u32(vtrn1q_u32(r[2], r[3])), vreinterpretq_u64_u32(vtrn2q_u32(r[2], r[3]))};
  const uint8x16_t words[4] = {
      vreinterpretq_u8_u64(vtrn1q_u64(t[0], t[2])), vreinterpretq_u8_u64(vtrn1q_u64(t[1], t[3])),
      vreinterpretq_u8_u64(vtrn2q_u64(t[0], t[2])), vreinterpretq_u8_u64(vtrn2q_u64(t[1], t[3]))};
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      vst1q_u8(out + (8 * i + j) * kStepBytes, (words[j] >> static_cast<uint8_t>(2 * i)) & 3);
  }
}

// Rows n .. n + 7 (the last row again beyond n_end) to one panel.
void UnpackPanel(const TernaryGemmArgs& args, int64_t n, int64_t n_end, uint8_t* panel) {
  const int64_t row_bytes = T2RowBytes(args.k);
  for (int64_t half = 0; half < kRows / 4; ++half) {
    const uint8_t* rows[4];
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t row = n + half * 4 + i;
      rows[i] = args.w_t2 + (row < n_end ? row : n_end - 1) * row_bytes;
    }
    for (int64_t byte = 0; byte < row_bytes; byte += kT2BlockBytes) {
      uint8_t* out = panel + byte * kStepBytes + half * 16;
      UnpackWords(rows, byte, out);
      UnpackWords(rows, byte + 16, out + 4 * kStepBytes);
    }
  }
}

struct Tile {
  const uint8_t* panel;
  const int8_t* x;
  int64_t ldx, k;
  const int32_t* x_sum;
  const float* out_scale;
  float* y;
  int64_t ldy;
  int64_t rows;  // How many of the 8 rows exist.
};

// Four k: lane `lane` of each token's 16 activations.
template <int T, int lane>
TERN_INLINE void AddStep(const uint8_t* w, const int8x16_t (&a)[T], int32x4_t (&acc)[2][T]) {
  const int8x16_t w0 = vreinterpretq_s8_u8(vld1q_u8(w + lane * kStepBytes));
  const int8x16_t w1 = vreinterpretq_s8_u8(vld1q_u8(w + lane * kStepBytes + 16));
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    acc[0][t] = vdotq_laneq_s32(acc[0][t], w0, a[t], lane);
    acc[1][t] = vdotq_laneq_s32(acc[1][t], w1, a[t], lane);
  }
}

template <int T>
__attribute__((noinline)) void MultiplyTile(const Tile& tile) {
  int32x4_t acc[2][T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) acc[0][t] = acc[1][t] = vdupq_n_s32(0);
  const uint8_t* w = tile.panel;
  for (int64_t k = 0; k < tile.k; k += 16, w += 4 * kStepBytes) {
    int8x16_t a[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) a[t] = vld1q_s8(tile.x + t * tile.ldx + k);
    AddStep<T, 0>(w, a, acc);
    AddStep<T, 1>(w, a, acc);
    AddStep<T, 2>(w, a, acc);
    AddStep<T, 3>(w, a, acc);
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const int32x4_t sum = vdupq_n_s32(tile.x_sum[t]);
    float y[kRows];
    for (int half = 0; half < 2; ++half) {
      const float32x4_t exact = vcvtq_f32_s32(vsubq_s32(acc[half][t], sum));
      vst1q_f32(y + half * 4, vmulq_n_f32(exact, tile.out_scale[t]));
    }
    const int64_t rows = tile.rows < kRows ? tile.rows : kRows;
    __builtin_memcpy(tile.y + t * tile.ldy, y, static_cast<size_t>(rows) * sizeof(float));
  }
}

void MultiplyTokens(const Tile& tile, int64_t tokens) {
  switch (tokens) {
    case 1:
      return MultiplyTile<1>(tile);
    case 2:
      return MultiplyTile<2>(tile);
    case 3:
      return MultiplyTile<3>(tile);
    case 4:
      return MultiplyTile<4>(tile);
    case 5:
      return MultiplyTile<5>(tile);
    case 6:
      return MultiplyTile<6>(tile);
    case 7:
      return MultiplyTile<7>(tile);
    default:
      return MultiplyTile<kTokens>(tile);
  }
}

}  // namespace

void TernaryGemmManyNeon(const TernaryGemmArgs& args, const GemmRange& range, uint8_t* buffer,
                         int64_t panels) {
  const int64_t padded_k = T2PaddedK(args.k), panel_bytes = kRows * padded_k;
  for (int64_t n0 = range.n_begin; n0 < range.n_end; n0 += panels * kRows) {
    const int64_t n1 = n0 + panels * kRows < range.n_end ? n0 + panels * kRows : range.n_end;
    for (int64_t n = n0; n < n1; n += kRows)
      UnpackPanel(args, n, n1, buffer + (n - n0) / kRows * panel_bytes);
    for (int64_t m = range.m_begin; m < range.m_end; m += kTokens) {
      const int64_t tokens = range.m_end - m < kTokens ? range.m_end - m : kTokens;
      for (int64_t n = n0; n < n1; n += kRows) {
        const Tile tile{buffer + (n - n0) / kRows * panel_bytes,
                        args.x + m * args.ldx,
                        args.ldx,
                        padded_k,
                        args.x_sum + m,
                        args.out_scale + m,
                        args.y + m * args.ldy + n,
                        args.ldy,
                        n1 - n};
        MultiplyTokens(tile, tokens);
      }
    }
  }
}

}  // namespace tern::kernels
