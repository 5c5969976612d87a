// The small steps between the operations of a model on a GPU: adding to the residual stream and
// of biases, the scales of a ternary product, 16-bit activations, the most probable token. All
// exact or rounded once: equal to plain loops on the CPU bit for bit.
#pragma once

#include <cstdint>

#include "kernels/common/half.h"
#include "kernels/common/row.cuh"

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

// The better of two candidates: the higher logit, then the lower id. An id of -1 is none.
TERN_DEVICE bool Better(float logit, int id, float best, int best_id) {
  if (id < 0) return false;
  return best_id < 0 || logit > best || (logit == best && id < best_id);
}

// id[m] = the lowest index of the highest of the n logits of row m; -1 when one is NaN or +Inf or
// all are -Inf, which the host reports. Grid: m blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads)
    ArgmaxKernel(const float* logits, int n, int64_t ld, int32_t* id) {
  __shared__ float warp_best[kRowWarps];
  __shared__ int warp_id[kRowWarps], warp_bad[kRowWarps];
  const float* row = logits + static_cast<int64_t>(blockIdx.x) * ld;
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
  id[blockIdx.x] = bad != 0 ? -1 : best_id;
}

}  // namespace tern::kernels
