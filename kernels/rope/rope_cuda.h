// The C++ face of the rotary embedding in libtern_kernels_cuda.so, for code that compiles without
// the toolkit. Never throws.
#pragma once

#include <cstdint>

namespace tern::kernels {

// Device pointers.
struct RopeArgs {
  float* x;                            // [rows, heads, 2 * half], ldx from row to row.
  const int32_t* positions;            // [rows], each in [0, context).
  const float *cos_table, *sin_table;  // [context, half]: RopeTable.
  int rows, heads, half;
  int64_t ldx;
  float sign;  // 1 (RopeDirection::kForward) or -1 (kInverse).
};

// Rope on the current device; all device pointers. `stream` is a cudaStream_t
// or null. Returns as soon as the kernel is queued: an error text, or null when all is well.
const char* LaunchRope(const RopeArgs& args, void* stream);

}  // namespace tern::kernels
