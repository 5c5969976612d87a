// The C++ face of the weight quantizer in libtern_kernels_cuda.so, for code that compiles without
// the toolkit. Never throws: each returns an error text, or null when all is well, as soon as the
// work is queued. `stream` is a cudaStream_t or null.
#pragma once

#include <cstdint>

namespace tern::kernels {

struct TernaryQuantizeCudaArgs;

// *beta = TernaryScale(w, count). Device pointers; block_sums: scratch of ceil(count /
// kAbsMeanBlock) floats. REQUIRES: count > 0.
const char* LaunchTernaryScale(const float* w, int64_t count, float* block_sums, float* beta,
                               void* stream);

// TernaryQuantize with beta in device memory; sets args.counts. Args as in ternary_quantize.cuh.
const char* LaunchTernaryQuantize(const TernaryQuantizeCudaArgs& args, void* stream);

}  // namespace tern::kernels
