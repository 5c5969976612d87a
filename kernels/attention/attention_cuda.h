// The C++ face of attention in libtern_kernels_cuda.so, for code that compiles without the toolkit.
// Never throws. Launchers return as soon as their kernels are queued: an error text, or null when
// all is well. `stream` is a cudaStream_t or null.
#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"

namespace tern::kernels {

inline constexpr int kAttentionMaxWidth = 256;  // Largest head_width

// Device pointers, those in rows and cache included. REQUIRES: head_width <= kAttentionMaxWidth.
struct AttentionArgs {
  const float* q;  // [m, ldq]
  int64_t ldq;
  AttentionShape shape;
  KvRows rows;
  KvPages cache;
  float* states;     // [m, H, max_segments, head_width + 2]: acc, max, sum
  int max_segments;  // That any of the rows sees
  float* out;        // [m, ldo]
  int64_t ldo;
};

// PagedAttention on the current device.
const char* LaunchAttention(const AttentionArgs& args, void* stream);

}  // namespace tern::kernels
