// The C++ face of RMSNorm in libtern_kernels_cuda.so, for code that compiles without the toolkit.
// Never throws. All pointers are device pointers; `stream` is a cudaStream_t or null. Launchers
// return as soon as the kernel is queued: an error text, or null when all is well.
#pragma once

#include <cstdint>

namespace tern::kernels {

// RmsNormForward without inv_rms: x, y [m, d], y may be x.
const char* LaunchRmsNorm(const float* x, const float* g, int64_t m, int64_t d, float eps, float* y,
                          void* stream);

}  // namespace tern::kernels
