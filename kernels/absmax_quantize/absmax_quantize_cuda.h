// The C++ face of the activation quantizer in libtern_kernels_cuda.so, for code that compiles
// without the toolkit. Never throws.
#pragma once

namespace tern::kernels {

struct AbsmaxQuantizeArgs;

// Quantizes args.m rows; args as in absmax_quantize.cuh, all device pointers. `stream` is a
// cudaStream_t or null. Returns as soon as the kernel is queued: an error text, or null when all
// is well.
const char* LaunchAbsmaxQuantize(const AbsmaxQuantizeArgs& args, void* stream);

}  // namespace tern::kernels
