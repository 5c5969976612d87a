// Inputs of a product rounded as a folder of INT8 or FP8 weights asks for them, and scaled back
// (compressed-tensors' calculate_qparams for symmetric dynamic 8 bits): the one function of the
// trainer's quantize.rules, the engine's --activations folder and, bit for bit, the CUDA kernel.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

// Each `group` columns of a row have the scale amax / 127.5 (int8) or amax / 448 (FP8 E4M3), or all
// have `scale` where that is above 0; codes are x / scale to nearest, halves to even, within
// -128..127 or saturating. fp32, each quotient and product rounded once. Zeros where the scale is
// no number above 0; NaN stays NaN.
struct RoundInputsArgs {
  const float* x = nullptr;  // [m, k]
  // Either [m, k] scaled back, code * scale;
  float* out = nullptr;
  // or, on GPUs, codes [m, k] as they are and the scale of each row. REQUIRES: fp8, group of all
  // columns. A row whose scale is no number above 0 has codes and scale of 0.
  uint8_t* codes = nullptr;
  float* row_scale = nullptr;
  int64_t m = 0, k = 0;
  int64_t group = 0;  // Columns; 0: all
  float scale = 0;
  bool fp8 = true;
};

// REQUIRES: `out`.
void RoundInputs(const RoundInputsArgs& args, const ParallelFor& parallel);

}  // namespace tern::kernels
