// The rows cut for the threads; what a row takes comes from rope and attention.
#include "kernels/rope_kv/rope_kv.h"

#include <algorithm>

#include "kernels/attention/attention_impl.h"
#include "kernels/common/thread_buffer.h"
#include "kernels/rope/rope_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrainElements = 16384;  // Below, waking a thread costs more than it saves.

}  // namespace

void RopeKv(const RopeKvArgs& args, const ParallelFor& parallel) {
  const int64_t half = args.head_width / 2, keys = args.kv_heads * args.head_width;
  const int64_t row_elements = args.heads * args.head_width + 2 * keys;
  if (args.rows.m == 0 || row_elements == 0) return;
  parallel(args.rows.m, kGrainElements / row_elements + 1, [&](int64_t begin, int64_t end) {
    auto* key = reinterpret_cast<float*>(ThreadBuffer(keys * static_cast<int64_t>(sizeof(float))));
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = args.rows.positions[row] * half;
      const float *cosine = args.cos_table + at, *sine = args.sin_table + at;
      RopeRow(args.q + row * args.ldq, args.heads, half, cosine, sine, 1.0f);
      std::copy_n(args.k + row * args.ldk, keys, key);
      RopeRow(key, args.kv_heads, half, cosine, sine, 1.0f);
      WriteKvRow(key, args.v + row * args.ldv, args.kv_heads, args.head_width, args.rows, row,
                 args.cache);
    }
  });
}

}  // namespace tern::kernels
