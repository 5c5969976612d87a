// The C++ face of the 4-bit product in libtern_kernels_cuda.so. No CUDA type appears here. Never
// throws: returns an error text, or null when all is well.
#pragma once

#include <cstdint>

#include "kernels/w4a16/w4a16.h"

namespace tern::kernels {

// Device pointers. As W4A16Args, but with 16-bit activations, whose type is also that of the
// scales.
struct W4A16CudaArgs {
  const uint8_t* w = nullptr;           // [n, W4RowBytes(k)], aligned to 16 bytes
  const uint16_t* scales_GN = nullptr;  // [W4Groups(k), n]
  const uint8_t* zeros_GN = nullptr;    // [W4Groups(k), n] or null: 8
  const uint16_t* x = nullptr;  // [m, ldx], aligned to 16 bytes; zero beyond k up to whole groups
  const float* x_scale = nullptr;  // [m] or null: what results of a token are multiplied with
  float* y = nullptr;              // [m, ldy]
  Float16Type type = Float16Type::kF16;
  int64_t m = 0, n = 0, k = 0, ldx = 0, ldy = 0;
};

// Whether the shapes and addresses are those that the kernels take. Null, or what is wrong.
const char* CheckW4A16Cuda(const W4A16CudaArgs& args);

// y = x W^T (times x_scale) on the current device (sm_80 or later): up to 8 tokens by the GEMV,
// more by the GEMM. `stream` is a cudaStream_t or null. Returns as soon as the kernel is queued.
const char* LaunchW4A16(const W4A16CudaArgs& args, void* stream);

}  // namespace tern::kernels
