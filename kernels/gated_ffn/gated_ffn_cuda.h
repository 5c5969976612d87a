// The C++ face of the gate in libtern_kernels_cuda.so, for code that compiles without the toolkit.
// Never throws.
#pragma once

#include <cstdint>

#include "kernels/gated_ffn/gated_ffn.h"

namespace tern::kernels {

// Device pointers; h may be gate or up. Fastest where all are aligned to 16 bytes.
struct GatedFfnArgs {
  const float *gate, *up;  // [count]
  float* h;                // [count]
  int64_t count;
};

// GatedFfnForward on the current device; all device pointers. `stream` is
// a cudaStream_t or null. Returns as soon as the kernel is queued: an error text, or null when all
// is well.
const char* LaunchGatedFfn(GateActivation activation, const GatedFfnArgs& args, void* stream);

}  // namespace tern::kernels
