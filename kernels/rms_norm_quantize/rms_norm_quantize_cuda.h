// The C++ face of the fused norm and quantizer in libtern_kernels_cuda.so, for code that compiles
// without the toolkit. Never throws.
#pragma once

#include "kernels/rms_norm_quantize/rms_norm_quantize.h"

namespace tern::kernels {

// As RmsNormQuantize on the current device: all pointers of args are device pointers; m and d below
// 2^31. `stream` is a cudaStream_t or null. Returns as soon as the kernel is queued: an error text,
// or null when all is well.
const char* LaunchRmsNormQuantize(const RmsNormQuantizeArgs& args, void* stream);

}  // namespace tern::kernels
