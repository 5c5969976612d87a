// What stands between a layer's projections and its attention, in one pass over them: queries are
// rotated in place (rope.h), keys rotated and converted into their places in the cache, values
// converted (attention.h). A key is never written back between the two. Same bits as Rope on
// queries and keys, then WriteKv.
#pragma once

#include <cstdint>

#include "base/parallel.h"
#include "kernels/attention/attention.h"

namespace tern::kernels {

struct RopeKvArgs {
  float* q;        // [m, heads, head_width], ldq elements from row to row
  const float* k;  // [m, kv_heads, head_width], before the rotation
  const float* v;  // [m, kv_heads, head_width]
  int64_t ldq, ldk, ldv;
  int64_t heads, kv_heads, head_width;  // head_width is even
  const float *cos_table, *sin_table;   // [context, head_width / 2]: RopeTable
  KvRows rows;                          // Positions below context
  KvPages cache;
};

void RopeKv(const RopeKvArgs& args, const ParallelFor& parallel);

}  // namespace tern::kernels
