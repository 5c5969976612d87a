// The C++ face of rounded inputs in libtern_kernels_cuda.so, for code that compiles without the
// toolkit: the numbers of RoundInputs bit for bit. Never throws. All pointers are device pointers;
// `stream` is a cudaStream_t or null.
#pragma once

#include "kernels/round_inputs/round_inputs.h"

namespace tern::kernels {

// Returns as soon as the kernel is queued: an error text, or null when all is well.
const char* LaunchRoundInputs(const RoundInputsArgs& args, void* stream);

}  // namespace tern::kernels
