// RMSNorm of rows of floats on a GPU, equal to the CPU kernels bit for bit.
//   16 threads add the squares in the lanes of common/lanes.h, straight from memory: for heads and
//   for the last norm of a model; the norms before products are fused (kernels/rms_norm_quantize)
#pragma once

#include <cstdint>

#include "kernels/common/lanes.h"
#include "kernels/common/row.cuh"

namespace tern::kernels {

// x, y: [m, d], y may be x. g: [d]. Grid: m blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads)
    RmsNormKernel(const float* x, const float* g, int d, float eps, float* y) {
  TERN_SHARED(float, shared_inv_rms);
  const float* row = x + static_cast<int64_t>(blockIdx.x) * d;
  if (threadIdx.x < 32) {
    float sum = 0.0f;
    if (threadIdx.x < kLanes) {
      for (int i = static_cast<int>(threadIdx.x); i < d; i += static_cast<int>(kLanes))
        sum += row[i] * row[i];
    }
    TERN_UNROLL
    for (unsigned half = kLanes / 2; half > 0; half /= 2) sum += simt::ShuffleDownFloat(sum, half);
    if (threadIdx.x == 0) shared_inv_rms = 1.0f / sqrtf(sum / static_cast<float>(d) + eps);
  }
  simt::SyncBlock();
  float* to = y + static_cast<int64_t>(blockIdx.x) * d;
  for (int i = static_cast<int>(threadIdx.x); i < d; i += kRowThreads)
    to[i] = row[i] * shared_inv_rms * g[i];
}

}  // namespace tern::kernels
