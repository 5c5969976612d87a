// Activations to int8 on a GPU, one block of threads a row: see quantize_row.cuh.
#pragma once

#include <cstdint>

#include "kernels/absmax_quantize/absmax_quantize_cuda.h"
#include "kernels/absmax_quantize/quantize_row.cuh"

namespace tern::kernels {

// Grid: m blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads) AbsmaxQuantizeKernel(const AbsmaxQuantizeArgs args) {
  const int64_t m = blockIdx.x;
  QuantizeRow(PlainRow{args.x + m * args.ldx, args.k}, args.k, args.padded_k, args.q + m * args.ldq,
              args.gamma + m, args.sum + m);
}

}  // namespace tern::kernels
