// A step between projections and attention for the tests of RopeKv on CPUs and in the emulator.
#pragma once

#include <vector>

#include "kernels/rope/rope.h"
#include "kernels/rope_kv/rope_kv.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {

// Rows of two sequences whose positions run over a few pages, with room between the rows of each
// matrix.
struct RopeKvProblem {
  static constexpr int64_t kContext = 100, kPages = 4, kSequences = 2;

  RopeKvProblem(KvType type, int64_t m, int64_t heads, int64_t kv_heads, int64_t width)
      : cosine(static_cast<size_t>(kContext * width / 2)),
        sine(cosine.size()),
        q(RandomFloats(m * (heads * width + 3), 1)),
        k(RandomFloats(m * (kv_heads * width + 1), 2)),
        v(RandomFloats(m * (kv_heads * width + 2), 3)),
        cache(static_cast<size_t>(kSequences * kPages * KvPageBytes(type, kv_heads, width)), '\7') {
    RopeTable(kContext, width, 10000.0, {}, cosine.data(), sine.data());
    for (int64_t row = 0; row < m; ++row) {
      positions.push_back(static_cast<int32_t>((37 * row + 31) % kContext));
      sequences.push_back(static_cast<int32_t>(row % kSequences));
    }
    if (m > 1) positions.back() = kContext - 1;
    for (int32_t page = 0; page < kSequences * kPages; ++page)
      tables.push_back(kSequences * kPages - 1 - page);
    args = {q.data(),
            k.data(),
            v.data(),
            heads * width + 3,
            kv_heads * width + 1,
            kv_heads * width + 2,
            heads,
            kv_heads,
            width,
            cosine.data(),
            sine.data(),
            {m, positions.data(), sequences.data(), tables.data(), kPages},
            KvPagesAt(cache.data(), type, kv_heads, width)};
  }
  RopeKvProblem(const RopeKvProblem&) = delete;  // args points into it

  std::vector<float> cosine, sine, q, k, v;
  std::vector<char> cache;
  std::vector<int32_t> positions, sequences, tables;
  RopeKvArgs args;
};

}  // namespace tern::kernels
