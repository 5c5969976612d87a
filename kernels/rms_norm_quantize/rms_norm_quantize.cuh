// RMSNorm and int8 quantization of its result on a GPU, one block of threads a row, equal to the
// CPU oracle bit for bit.
//
//   squares: all threads load and square a tile of 1,024 elements into one of two shared tiles;
//            | lane 0 | lane 1 | ... | lane 15 |   16 threads of warp 0 add them in the order of
//            | x0^2   | x1^2   | ... | x15^2   |   common/lanes.h: lane l takes the elements l,
//            | x16^2  | x17^2  | ... | x31^2   |   l + 16, ...; then shuffles join 8, 4, 2, 1.
//            Meanwhile the other warps stage the next tile: one barrier a tile.
//   then     quantize_row.cuh on x * inv_rms * g, computed twice (once for the maximum, once for
//            the codes) from x and g, which the first-level cache holds by then.
#pragma once

#include <cstdint>

#include "kernels/absmax_quantize/quantize_row.cuh"
#include "kernels/common/lanes.h"
#include "kernels/rms_norm_quantize/rms_norm_quantize.h"

namespace tern::kernels {

// The reader of a normalised row. Each product is rounded once, as in the oracle.
struct NormalisedRow {
  const float *x, *g;
  float inv_rms;
  int d;
  TERN_DEVICE Floats4 Four(int i) const {
    Floats4 v = LoadFour(x + i, d - i);
    const Floats4 gain = LoadFour(g + i, d - i);
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) v.value[j] = v.value[j] * inv_rms * gain.value[j];
    return v;
  }
};

// Joins the sums of lanes 0..15 of a warp as JoinLanes does: valid in lane 0; all 32 lanes call it.
TERN_DEVICE float JoinLanesOfWarp(float sum) {
  TERN_UNROLL
  for (unsigned half = kLanes / 2; half > 0; half /= 2) sum += simt::ShuffleDownFloat(sum, half);
  return sum;
}

// sum_i x[i]^2, valid in thread 0.
TERN_DEVICE float SumOfSquares(const float* x, int d) {
  TERN_SHARED(Floats4, squares, [2][kRowThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  float sum = 0.0f;
  int tile = 0;
  for (int begin = 0; begin < d; begin += kRowStep, tile ^= 1) {
    Floats4 v = LoadFour(x + begin + 4 * thread, d - begin - 4 * thread);
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) v.value[j] = v.value[j] * v.value[j];
    squares[tile][thread] = v;
    simt::SyncBlock();  // The tile before was read before this thread came here.
    if (thread >= kLanes) continue;
    const int left = d - begin < kRowStep ? d - begin : kRowStep;
    for (int i = thread; i < left; i += kLanes) sum += squares[tile][i / 4].value[i % 4];
  }
  return JoinLanesOfWarp(sum);
}

// Grid: m blocks of kRowThreads. Device pointers in args.
__global__ void __launch_bounds__(kRowThreads)
    RmsNormQuantizeKernel(const RmsNormQuantizeArgs args, int padded_d) {
  const int64_t m = blockIdx.x;
  const int d = static_cast<int>(args.d);
  const float* x = args.x + m * args.d;
  TERN_SHARED(float, shared_inv_rms);
  const float sum = SumOfSquares(x, d);
  if (threadIdx.x == 0) {
    const float inv_rms = 1.0f / sqrtf(sum / static_cast<float>(d) + args.eps);
    shared_inv_rms = inv_rms;
    args.inv_rms[m] = inv_rms;
  }
  simt::SyncBlock();
  QuantizeRow(NormalisedRow{x, args.g, shared_inv_rms, d}, d, padded_d, args.q + m * args.ldq,
              args.gamma + m, args.sum + m);
}

}  // namespace tern::kernels
