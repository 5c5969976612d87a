// The small steps between the operations of a model on a GPU: adding to the residual stream and
// of biases, the scales of products of codes, 16-bit activations. All exact or rounded once an
// operation: equal to plain loops on the CPU bit for bit.
#pragma once

#include <cstdint>

#include "kernels/common/half.h"
#include "kernels/common/row.cuh"
#include "kernels/elementwise/elementwise_cuda.h"

namespace tern::kernels {

// x[i] += y[i]. Grid: ceil(count / kRowThreads) blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads) AddKernel(float* x, const float* y, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (i < count) x[i] += y[i];
}

// out_scale[i] = beta * (gamma[i] / 127), the factor of row i of a BitLinear product. Grid: ceil(m
// / kRowThreads) blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads)
    OutScaleKernel(const float* gamma, float beta, int64_t m, float* out_scale) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (i < m) out_scale[i] = beta * (gamma[i] / 127.0f);
}

// x[i] += bias[i % n]. Grid: ceil(count / kRowThreads) blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads)
    AddBiasKernel(float* x, const float* bias, int64_t count, int n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (i < count) x[i] += bias[i % n];
}

// y[m, n] = y * row[m] * column[n / block_n], from left to right; column null: without it, and rows
// of a factor of 1 are not touched. Grid: (ceil(n / kRowThreads), m) blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads) ScaleRowsKernel(const ScaleRowsArgs args) {
  const int64_t row = blockIdx.y;
  const int n = static_cast<int>(blockIdx.x * kRowThreads + threadIdx.x);
  if (n >= args.n) return;
  const float factor = args.row[row];
  if (args.column == nullptr && factor == 1.0f) return;
  const float scaled = args.y[row * args.n + n] * factor;
  args.y[row * args.n + n] =
      args.column == nullptr ? scaled : scaled * args.column[n / args.block_n];
}

// out[m, ldo] = x[m, k] as fp16 or bf16, rounded to nearest; zeros beyond k. Grid: m blocks of
// kRowThreads.
template <bool kBf16>
__global__ void __launch_bounds__(kRowThreads)
    RoundRowsKernel(const float* x, int k, uint16_t* out, int ldo) {
  const int64_t row = blockIdx.x;
  for (int i = static_cast<int>(threadIdx.x); i < ldo; i += kRowThreads) {
    const float value = i < k ? x[row * k + i] : 0.0f;
    out[row * ldo + i] = kBf16 ? BfloatFromFloat(value) : HalfFromFloat(value);
  }
}

}  // namespace tern::kernels
