// 4-bit product for 1 to 8 tokens on a GPU: tokens are the 8 columns of mma.m16n8k16, so that a
// weight costs one dequantization whatever the batch, and activations need no conversion.
//
//   block: 16 rows, 8 warps; warp w takes the groups w, w + 8, ... of k
//   lane 4 g + t: rows g and g + 8, 16 bytes of each = words 4 t + r, r = 0..3 (one 128-bit load);
//                 token g, the 16 bytes of activations that belong to word 4 t + r
//   a group: 4 words x 2 steps of the matrix unit into fresh sums, then total = fma(scale, sum,
//   total)
//
// The warps' totals meet in shared memory and are added in the order of the warps. Which groups a
// warp takes does not depend on the batch: a token's result does not either.
#pragma once

#include "kernels/w4a16/w4a16_fragments.cuh"

namespace tern::kernels {

inline constexpr int kW4GemvMaxBatch = 8;
inline constexpr int kW4GemvRows = 16;
inline constexpr int kW4GemvWarps = 8;
inline constexpr int kW4GemvThreads = 32 * kW4GemvWarps;

// total += one group of 16 rows times 8 tokens. `low`, `high`: the rows' words of this lane.
template <bool kBf16>
TERN_DEVICE void W4GemvGroup(const W4A16DeviceArgs& args, int group, const simt::Words4& low,
                             const simt::Words4& high, const W4RowGroup& row_low,
                             const W4RowGroup& row_high, float (&total)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const uint16_t* x = args.x + g * args.ldx + 128 * group + 8 * t;
  float part[4] = {};
  TERN_UNROLL
  for (int r = 0; r < 4; ++r) {
    simt::Words4 b = {};
    if (g < args.m) b = simt::LoadConstant128(x + 32 * r);
    uint32_t pairs_low[4], pairs_high[4];
    W4Pairs<kBf16>(low.word[r], row_low.zero_pair, pairs_low);
    W4Pairs<kBf16>(high.word[r], row_high.zero_pair, pairs_high);
    TERN_UNROLL
    for (int step = 0; step < 2; ++step) {
      const uint32_t a[4] = {pairs_low[2 * step], pairs_high[2 * step], pairs_low[2 * step + 1],
                             pairs_high[2 * step + 1]};
      const uint32_t b_pairs[2] = {b.word[2 * step], b.word[2 * step + 1]};
      W4Multiply<kBf16>(part, a, b_pairs);
    }
  }
  TERN_UNROLL
  for (int i = 0; i < 4; ++i) {
    total[i] = simt::MultiplyAdd(i < 2 ? row_low.scale : row_high.scale, part[i], total[i]);
  }
}

// Grid: ceil(n / kW4GemvRows) blocks of kW4GemvThreads. args.m: 1 to 8.
template <bool kBf16>
__global__ void __launch_bounds__(kW4GemvThreads) W4A16GemvKernel(const W4A16DeviceArgs args) {
  TERN_SHARED(float, totals, [kW4GemvWarps][4][32]);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row0 = static_cast<int>(blockIdx.x) * kW4GemvRows;
  const int low_row = row0 + lane / 4, high_row = low_row + 8;
  const int64_t row_bytes = static_cast<int64_t>(args.groups) * 64;
  // Rows beyond the matrix read the last one: their results are not written.
  const int last = args.n - 1;
  const uint8_t* low = args.w + (low_row < last ? low_row : last) * row_bytes + 16 * (lane % 4);
  const uint8_t* high = args.w + (high_row < last ? high_row : last) * row_bytes + 16 * (lane % 4);
  float total[4] = {};
  for (int group = warp; group < args.groups; group += kW4GemvWarps) {
    const simt::Words4 low_words = simt::LoadConstant128(low + 64 * group);
    const simt::Words4 high_words = simt::LoadConstant128(high + 64 * group);
    W4GemvGroup<kBf16>(args, group, low_words, high_words,
                       W4LoadRowGroup<kBf16>(args, low_row, group),
                       W4LoadRowGroup<kBf16>(args, high_row, group), total);
  }
  TERN_UNROLL
  for (int i = 0; i < 4; ++i) totals[warp][i][lane] = total[i];
  simt::SyncBlock();
  // 128 sums: place i of lane l is row l / 4 + 8 (i / 2) and token 2 (l % 4) + i % 2.
  const int i = warp;
  if (i >= 4) return;
  float sum = 0.0f;
  TERN_UNROLL
  for (int from = 0; from < kW4GemvWarps; ++from) sum += totals[from][i][lane];
  const int row = row0 + lane / 4 + 8 * (i / 2), token = 2 * (lane % 4) + i % 2;
  if (row < args.n && token < args.m) args.y[token * args.ldy + row] = W4Scaled(args, sum, token);
}

}  // namespace tern::kernels
