// The C++ face of BitLinear's backward pass in libtern_kernels_cuda.so. No CUDA type appears here.
// Never throws: each returns an error text, or null when all is well. Arguments as in
// ternary_backward.h with device pointers; `stream` is a cudaStream_t or null. On the current
// device (sm_80 or later); returns as soon as the kernel is queued. Deterministic: each element of
// a result is one thread's sum in one order, which depends on nothing but the sizes.
#pragma once

#include "kernels/ternary_backward/ternary_backward.h"

namespace tern::kernels {

// Bit-equal to the oracle but for the bits of NaN. ldo a multiple of 8, results aligned to 16
// bytes, m * GradientColumns(n) below 2^33.
const char* LaunchRoundGradient(const RoundGradientArgs& args, void* stream);

// Within (n + 4) 2^-23 beta sum |dy w| of the formula, plus 2^-23 of |dX| where it is added to. dy
// and w_t2 aligned to 16 bytes, lddy a multiple of 8; n below 2^30, k below 2^31.
const char* LaunchTernaryInputGradient(const TernaryInputGradientArgs& args, void* stream);

// Within (m + 1) 2^-23 sum |dy x| of the formula. dy and x aligned to 16 bytes, lddy a multiple of
// 8, ldx of 16; m, n below 2^30, k below 2^31.
const char* LaunchTernaryWeightGradient(const TernaryWeightGradientArgs& args, void* stream);

}  // namespace tern::kernels
