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

// The power of two p for which largest / p is within 2^14 .. 2^15, where `largest` is beyond what
// fp16 holds; 1 otherwise, also of what is not finite.
TERN_DEVICE float HalfRowScale(float largest) {
  constexpr float kLargestHalf = 65504.0f;
  const uint32_t bits = HalfFloatBits(largest);
  if (!(largest > kLargestHalf) || bits >= 0x7F800000u) return 1.0f;
  return HalfBitsFloat((bits & 0x7F800000u) - (14u << 23));  // Its exponent less 14
}

// out[m, ldo] = x[m, k] as fp16 or bf16, rounded to nearest; zeros beyond k. See RoundRowsArgs.
// Grid: m blocks of kRowThreads.
template <bool kBf16>
__global__ void __launch_bounds__(kRowThreads) RoundRowsKernel(const RoundRowsArgs args) {
  const int64_t row = blockIdx.x;
  const float* x = args.x + row * args.k;
  uint16_t* out = args.out + row * args.ldo;
  float inverse = 1.0f;
  if constexpr (!kBf16) {
    float amax = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < args.k; i += kRowThreads)
      amax = fmaxf(amax, fabsf(x[i]));
    const float scale = HalfRowScale(MaxOfBlock(amax));
    inverse = 1.0f / scale;  // A power of two, too
    if (threadIdx.x == 0) args.row_scale[row] = scale;
  }
  for (int i = static_cast<int>(threadIdx.x); i < args.ldo; i += kRowThreads) {
    const float value = i < args.k ? x[i] : 0.0f;
    out[i] = kBf16 ? BfloatFromFloat(value) : HalfFromFloat(value * inverse);
  }
}

}  // namespace tern::kernels
