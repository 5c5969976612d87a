// Rounds activations to int8 or FP8 E4M3 on a GPU and scales them back, or keeps codes and scales
// (see round_inputs_cuda.h): one block of threads a row and group of columns, a maximum, then one
// division an element. Division and product are rounded once each: equal to the CPU bit for bit.
#pragma once

#include <cstdint>

#include "kernels/common/row.cuh"
#include "kernels/fp8/fp8.cuh"
#include "kernels/round_inputs/round_inputs_cuda.h"

namespace tern::kernels {

// Of columns begin to end of a row, in every thread.
template <bool kFp8>
TERN_DEVICE float InputScale(const float* row, int64_t begin, int64_t end) {
  float amax = 0.0f;
  for (int64_t i = begin + threadIdx.x; i < end; i += kRowThreads)
    amax = fmaxf(amax, fabsf(row[i]));
  return MaxOfBlock(amax) / (kFp8 ? 448.0f : 127.5f);
}

// A code's value; NaN stays NaN.
template <bool kFp8>
TERN_DEVICE float RoundedInput(float quotient) {
  if (quotient != quotient) return quotient;
  if constexpr (kFp8) return FloatFromE4m3(E4m3FromFloat(quotient));
  return fminf(fmaxf(rintf(quotient), -128.0f), 127.0f);
}

// Grid: m * ceil(k / group) blocks of kRowThreads.
template <bool kFp8>
__global__ void __launch_bounds__(kRowThreads) RoundInputsKernel(const RoundInputsArgs args) {
  const int64_t groups = (args.k + args.group - 1) / args.group;
  const int64_t row = blockIdx.x / groups, begin = blockIdx.x % groups * args.group;
  const int64_t end = args.k - begin < args.group ? args.k : begin + args.group;
  const float* x = args.x + row * args.k;
  const float scale = args.scale > 0.0f ? args.scale : InputScale<kFp8>(x, begin, end);
  const bool scaled = scale > 0.0f;
  for (int64_t i = begin + threadIdx.x; i < end; i += kRowThreads) {
    if (args.codes != nullptr) {
      args.codes[row * args.k + i] = scaled ? E4m3FromFloat(x[i] / scale) : uint8_t{0};
    } else {
      args.out[row * args.k + i] = scaled ? scale * RoundedInput<kFp8>(x[i] / scale) : 0.0f;
    }
  }
  if (args.codes != nullptr && threadIdx.x == 0) args.row_scale[row] = scaled ? scale : 0.0f;
}

}  // namespace tern::kernels
