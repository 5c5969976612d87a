// The C++ face of RopeKv in libtern_kernels_cuda.so, for code that compiles without the toolkit.
// Never throws.
#pragma once

#include "kernels/rope_kv/rope_kv.h"

namespace tern::kernels {

// RopeKv on the current device: all pointers of args, those in rows and cache included, are the
// device's, the cache is fp16 or int8. `stream` is a cudaStream_t or null. Returns as soon as the
// kernel is queued: an error text, or null when all is well.
const char* LaunchRopeKv(const RopeKvArgs& args, void* stream);

}  // namespace tern::kernels
