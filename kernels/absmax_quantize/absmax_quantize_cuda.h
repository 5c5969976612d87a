// The C++ face of the activation quantizer in libtern_kernels_cuda.so, for code that compiles
// without the toolkit. Never throws.
#pragma once

#include <cstdint>

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

// Quantizes args.m rows; all device pointers. `stream` is a
// cudaStream_t or null. Returns as soon as the kernel is queued: an error text, or null when all
// is well.
const char* LaunchAbsmaxQuantize(const AbsmaxQuantizeArgs& args, void* stream);

}  // namespace tern::kernels
