// The C++ face of the small steps between operations in libtern_kernels_cuda.so, for code that
// compiles without the toolkit. Never throws. All pointers are device pointers; `stream` is a
// cudaStream_t or null. Launchers return as soon as the kernel is queued: an error text, or null
// when all is well.
#pragma once

#include <cstdint>

namespace tern::kernels {

// x[i] += y[i].
const char* LaunchAdd(float* x, const float* y, int64_t count, void* stream);
// out_scale[i] = beta * (gamma[i] / 127).
const char* LaunchOutScale(const float* gamma, float beta, int64_t m, float* out_scale,
                           void* stream);
// x[m, n] += bias[n].
const char* LaunchAddBias(float* x, const float* bias, int64_t m, int64_t n, void* stream);
// y[m, n] = y * row[m] * column[n / block_n], from left to right, each product rounded once.
struct ScaleRowsArgs {
  float* y;
  const float* row;
  const float* column;  // Null: y * row alone
  int m, n, block_n;
};
const char* LaunchScaleRows(const ScaleRowsArgs& args, void* stream);
// out[m, ldo] = x[m, k] as fp16 or bf16, rounded to nearest, zeros beyond k. fp16: a row whose
// largest element is beyond 65504, and finite, is divided before by the power of two that brings it
// into 2^14 .. 2^15, which row_scale[m] gets; other rows get 1. Exact, but that elements below
// 2^-28 of the largest become subnormal or zero.
struct RoundRowsArgs {
  const float* x;
  uint16_t* out;
  float* row_scale;  // fp16 only
  int m, k, ldo;
  bool bf16;
};
const char* LaunchRoundRows(const RoundRowsArgs& args, void* stream);

}  // namespace tern::kernels
