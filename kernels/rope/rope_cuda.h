// The C++ face of the rotary embedding in libtern_kernels_cuda.so, for code that compiles without
// the toolkit. Never throws.
#pragma once

namespace tern::kernels {

struct RopeArgs;

// Rope on the current device; args as in rope.cuh, all device pointers. `stream` is a cudaStream_t
// or null. Returns as soon as the kernel is queued: an error text, or null when all is well.
const char* LaunchRope(const RopeArgs& args, void* stream);

}  // namespace tern::kernels
