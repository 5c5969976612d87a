// Ternary matrix times several int8 vectors (made for 4 to 8) on tensor cores, from the same T2
// bytes: vectors are the 8 columns of mma.m16n8k32. Unpacking a code costs the same for one vector
// as for eight, where the dp4a kernel (ternary_gemv.cuh) multiplies each vector by itself.
//
//   block: 16 rows, 8 warps; warp w takes the steps w, w + 8, ... of 256 k (two T2 blocks)
//   lane 4 g + t: rows g and g + 8, their chunk t of 16 bytes = four words, each plane of which is
//                 a fragment; vector g, block t / 2, bytes 32 i + 16 (t % 2) for plane i
//
// As in ternary_gemm.cuh the order of k inside a step is free while both operands agree. The warps'
// sums meet in shared memory. Integer sums: any order gives the same bits.
#pragma once

#include "kernels/simt/intrin_tensor.h"
#include "kernels/ternary_gemm/ternary_gemv.cuh"

namespace tern::kernels {

inline constexpr int kGemvMmaRows = 16;
inline constexpr int kGemvMmaWarps = 8;
inline constexpr int kGemvMmaThreads = 32 * kGemvMmaWarps;

// acc[i] += 16 rows times 8 vectors over step `step`; two sums, so that no step waits for the last.
// `low`, `high`: the lane's rows; `x`: its vector, or null.
TERN_DEVICE void GemvMmaStep(const uint8_t* low, const uint8_t* high, const int8_t* x, int step,
                             int (&acc)[2][4]) {
  constexpr uint32_t kCodes = 0x03030303u;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const simt::Words4 low_words = simt::LoadConstant128(low + 64 * step + 16 * t);
  const simt::Words4 high_words = simt::LoadConstant128(high + 64 * step + 16 * t);
  TERN_UNROLL
  for (int plane = 0; plane < 4; ++plane) {
    simt::Words4 b = {};
    if (x != nullptr) {
      b = simt::LoadConstant128(x + 256 * step + 128 * (t / 2) + 32 * plane + 16 * (t % 2));
    }
    TERN_UNROLL
    for (int k_step = 0; k_step < 2; ++k_step) {
      const uint32_t a[4] = {(low_words.word[2 * k_step] >> (2 * plane)) & kCodes,
                             (high_words.word[2 * k_step] >> (2 * plane)) & kCodes,
                             (low_words.word[2 * k_step + 1] >> (2 * plane)) & kCodes,
                             (high_words.word[2 * k_step + 1] >> (2 * plane)) & kCodes};
      const uint32_t b_words[2] = {b.word[2 * k_step], b.word[2 * k_step + 1]};
      simt::MultiplyS8(acc[k_step], a, b_words);
    }
  }
}

// Grid: ceil(n / kGemvMmaRows) blocks of kGemvMmaThreads. batch: 1 to 8.
__global__ void __launch_bounds__(kGemvMmaThreads)
    TernaryGemvMmaKernel(const TernaryGemvArgs args, const int batch) {
  TERN_SHARED(int, sums, [kGemvMmaWarps][4][32]);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row0 = static_cast<int>(blockIdx.x) * kGemvMmaRows, row = row0 + lane / 4;
  const int64_t row_bytes = args.padded_k / 4;
  // Rows beyond the matrix read the last one: their sums are not written.
  const int last = args.n - 1;
  const uint8_t* low = args.w_t2 + (row < last ? row : last) * row_bytes;
  const uint8_t* high = args.w_t2 + (row + 8 < last ? row + 8 : last) * row_bytes;
  const int8_t* x = lane / 4 < batch ? args.x + static_cast<int64_t>(lane / 4) * args.ldx : nullptr;
  int acc[2][4] = {};
  const int steps = args.padded_k / 256;
  for (int step = warp; step < steps; step += kGemvMmaWarps) GemvMmaStep(low, high, x, step, acc);
  if (args.padded_k % 256 != 0 && steps % kGemvMmaWarps == warp) {
    // One T2 block is left: lanes of the second one read the first again, against zeros.
    const int back = lane % 4 < 2 ? 0 : 32;
    GemvMmaStep(low - back, high - back, lane % 4 < 2 ? x : nullptr, steps, acc);
  }
  TERN_UNROLL
  for (int i = 0; i < 4; ++i) sums[warp][i][lane] = acc[0][i] + acc[1][i];
  simt::SyncBlock();
  // 128 sums: place i of lane l is row l / 4 + 8 (i / 2) and vector 2 (l % 4) + i % 2.
  if (warp >= 4) return;
  int sum = 0;
  TERN_UNROLL
  for (int from = 0; from < kGemvMmaWarps; ++from) sum += sums[from][warp][lane];
  const int out_row = row + 8 * (warp / 2), b = 2 * (lane % 4) + warp % 2;
  if (out_row < args.n && b < batch) WriteRow(args, b, out_row, sum);
}

}  // namespace tern::kernels
