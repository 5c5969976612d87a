// Activations to int8 on a GPU, one block of threads a row: see quantize_row.cuh.
#pragma once

#include <cstdint>

#include "kernels/absmax_quantize/quantize_row.cuh"

namespace tern::kernels {

// Device pointers, any alignment; x and q fastest where pointer and row step are multiples of 16
// and 4 bytes. q: columns k..padded_k become 0.
struct AbsmaxQuantizeArgs {
  const float* x;  // [m, ldx]
  int8_t* q;       // [m, ldq], ldq >= padded_k
  float* gamma;    // [m]
  int32_t* sum;    // [m]
  int m, k;
  int padded_k;  // T2PaddedK(k), a multiple of 128.
  int64_t ldx, ldq;
};

// Grid: m blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads) AbsmaxQuantizeKernel(const AbsmaxQuantizeArgs args) {
  const int64_t m = blockIdx.x;
  QuantizeRow(PlainRow{args.x + m * args.ldx, args.k}, args.k, args.padded_k, args.q + m * args.ldq,
              args.gamma + m, args.sum + m);
}

}  // namespace tern::kernels
