// The C++ face of the tensor-core product in libtern_kernels_cuda.so, for more than 8 tokens (up to
// 8: ternary_gemv_cuda.h). No CUDA type appears here. Never throws: returns an error text, or null
// when all is well.
#pragma once

#include "kernels/ternary_gemm/ternary_gemm.h"

namespace tern::kernels {

// Whether the shapes and addresses are those that the kernel takes: w_t2 and x aligned to 16 bytes,
// ldx a multiple of 16 and at least T2PaddedK(k), m, n and k below 2^31. Null, or what is wrong.
const char* CheckTernaryGemmCuda(const TernaryGemmArgs& args);

// y = x W^T on the current device (sm_80 or later); args as in ternary_gemm.h with device pointers.
// `stream` is a cudaStream_t or null. Returns as soon as the kernel is queued.
const char* LaunchTernaryGemm(const TernaryGemmArgs& args, void* stream);

}  // namespace tern::kernels
