// The highest logit of a row: a maximum over the block that carries its place.
#pragma once

#include <cstdint>

#include "kernels/common/row.cuh"
#include "kernels/top_k/top_k_cuda.h"

namespace tern::kernels {

// The better of two candidates: the higher logit, then the lower id. An id of -1 is none.
TERN_DEVICE bool Better(float logit, int id, float best, int best_id) {
  if (id < 0) return false;
  return best_id < 0 || logit > best || (logit == best && id < best_id);
}

// TopKKernel for k = 1, in one pass. Grid: m blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads) ArgmaxKernel(const TopKArgs args) {
  TERN_SHARED(float, warp_best, [kRowWarps]);
  TERN_SHARED(int, warp_id, [kRowWarps]);
  TERN_SHARED(int, warp_bad, [kRowWarps]);
  const float* row = args.logits + static_cast<int64_t>(blockIdx.x) * args.ld;
  const int n = static_cast<int>(args.n);
  float best = -INFINITY;
  int best_id = -1, bad = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kRowThreads) {
    const float logit = row[i];
    if (!(logit < INFINITY)) bad = 1;
    if (logit > -INFINITY && Better(logit, i, best, best_id)) best = logit, best_id = i;
  }
  TERN_UNROLL
  for (unsigned mask = 16; mask > 0; mask /= 2) {
    const float other = simt::ShuffleXorFloat(best, mask);
    const int other_id = simt::ShuffleXorInt(best_id, mask);
    bad |= simt::ShuffleXorInt(bad, mask);
    if (Better(other, other_id, best, best_id)) best = other, best_id = other_id;
  }
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (threadIdx.x % 32 == 0) warp_best[warp] = best, warp_id[warp] = best_id, warp_bad[warp] = bad;
  simt::SyncBlock();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kRowWarps; ++w) {
    bad |= warp_bad[w];
    if (Better(warp_best[w], warp_id[w], best, best_id)) best = warp_best[w], best_id = warp_id[w];
  }
  args.best[blockIdx.x] = {bad != 0 ? -1 : best_id, best};
}

}  // namespace tern::kernels
