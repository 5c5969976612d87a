// beta of a weight matrix on a GPU, in the one order of summation that ternary_quantize.h defines.
// |w| is summed left to right over blocks of 4,096 elements, so a block is one chain of additions;
// what can run side by side are blocks.
//
//   32 chains a block of threads, tiles of 64 columns, two of them in shared memory:
//     chain 0  | w[0 * 4096 + 0..63]    |     all 8 warps load the next tile, coalesced,
//     ...      |                        |     while lane c of warp 0 adds row c of this one,
//     chain 31 | w[31 * 4096 + 0..63]   |     left to right: one barrier a tile
//
// A second kernel joins the sums of blocks left to right in fp64 with one thread.
#pragma once

#include <cstdint>

#include "kernels/common/row.cuh"
#include "kernels/ternary_quantize/ternary_quantize.h"

namespace tern::kernels {

inline constexpr int kScaleChains = 32;
inline constexpr int kScaleTile = 64;

// sums[b] = |w| of block b, for ceil(count / kAbsMeanBlock) blocks. Grid: ceil(blocks /
// kScaleChains) blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads)
    AbsBlockSumsKernel(const float* w, int64_t count, float* sums) {
  // One column more than used: the 32 lanes that read a column meet 32 banks.
  TERN_SHARED(float, staged, [2][kScaleChains][kScaleTile + 1]);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScaleChains;
  float sum = 0.0f;
  int tile = 0;
  for (int begin = 0; begin < kAbsMeanBlock; begin += kScaleTile, tile ^= 1) {
    TERN_UNROLL
    for (int i = 0; i < kScaleChains / kRowWarps; ++i) {
      const int chain = warp + i * kRowWarps;
      TERN_UNROLL
      for (int column = lane; column < kScaleTile; column += 32) {
        const int64_t at = (first + chain) * kAbsMeanBlock + begin + column;
        staged[tile][chain][column] = at < count ? fabsf(w[at]) : 0.0f;  // + 0 changes no sum.
      }
    }
    simt::SyncBlock();  // The tile before was read before warp 0 came here.
    if (warp != 0) continue;
    for (int i = 0; i < kScaleTile; ++i) sum += staged[tile][lane][i];
  }
  if (warp == 0 && (first + lane) * kAbsMeanBlock < count) sums[first + lane] = sum;
}

// *beta from the sums of blocks. Grid: one block of kRowThreads. REQUIRES: count > 0.
__global__ void __launch_bounds__(kRowThreads)
    JoinBlockSumsKernel(const float* sums, int64_t count, float* beta) {
  TERN_SHARED(float, staged, [2][kRowThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t blocks = (count + kAbsMeanBlock - 1) / kAbsMeanBlock;
  double total = 0.0;
  int tile = 0;
  for (int64_t begin = 0; begin < blocks; begin += kRowThreads, tile ^= 1) {
    if (begin + thread < blocks) staged[tile][thread] = sums[begin + thread];
    simt::SyncBlock();
    if (thread != 0) continue;
    const int64_t left = blocks - begin < kRowThreads ? blocks - begin : kRowThreads;
    for (int64_t i = 0; i < left; ++i) total += static_cast<double>(staged[tile][i]);
  }
  if (thread != 0) return;
  const float mean = static_cast<float>(total / static_cast<double>(count));
  *beta = mean < kScaleFloor ? kScaleFloor : mean;  // In this form NaN stays NaN.
}

}  // namespace tern::kernels
