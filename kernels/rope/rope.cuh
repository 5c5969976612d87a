// Rotary embedding in place on a GPU, one block of threads a row, equal to the CPU kernels bit for
// bit (each product rounded once).
//
//   row: | head 0: low 0..half-1, high 0..half-1 | head 1: low, high | ...
//   pair p of heads * half: head p / half, i = p % half; thread t takes p = t, t + threads, ...:
//   neighbours in a warp read neighbouring elements of low, high, cosine and sine
#pragma once

#include <cstdint>

#include "kernels/common/row.cuh"
#include "kernels/rope/rope.h"
#include "kernels/rope/rope_cuda.h"

namespace tern::kernels {

// Grid: rows blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads) RopeKernel(const RopeArgs args) {
  float* x = args.x + static_cast<int64_t>(blockIdx.x) * args.ldx;
  const int64_t at = static_cast<int64_t>(args.positions[blockIdx.x]) * args.half;
  const int pairs = args.heads * args.half;
  for (int pair = static_cast<int>(threadIdx.x); pair < pairs; pair += kRowThreads) {
    const int head = pair / args.half, i = pair - head * args.half;
    float* low = x + static_cast<int64_t>(head) * 2 * args.half + i;
    float* high = low + args.half;
    const float a = *low, b = *high;
    const float c = args.cos_table[at + i], s = args.sign * args.sin_table[at + i];
    *low = a * c - b * s;
    *high = b * c + a * s;
  }
}

}  // namespace tern::kernels
