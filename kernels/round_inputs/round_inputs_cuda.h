// The C++ face of rounded inputs in libtern_kernels_cuda.so, for code that compiles without the
// toolkit: activations as a folder of INT8 or FP8 weights asks for them (compressed-tensors'
// calculate_qparams), with the numbers of the engine's RoundInputs bit for bit. Never throws. All
// pointers are device pointers; `stream` is a cudaStream_t or null.
#pragma once

#include <cstdint>

namespace tern::kernels {

// Each `group` columns of a row have the scale amax / 127.5 (int8) or amax / 448 (FP8 E4M3), or all
// have `scale` where that is above 0; codes are x / scale to nearest, within -128..127 or
// saturating.
struct RoundInputsArgs {
  const float* x = nullptr;  // [m, k]
  // Either [m, k] scaled back, code * scale;
  float* out = nullptr;
  // or codes [m, k] as they are and the scale of each row. REQUIRES: fp8, group of all columns. A
  // row whose scale is no number above 0 has codes and scale of 0.
  uint8_t* codes = nullptr;
  float* row_scale = nullptr;
  int64_t m = 0, k = 0;
  int64_t group = 0;  // Columns; 0: all
  float scale = 0;
  bool fp8 = true;
};

// Returns as soon as the kernel is queued: an error text, or null when all is well.
const char* LaunchRoundInputs(const RoundInputsArgs& args, void* stream);

}  // namespace tern::kernels
