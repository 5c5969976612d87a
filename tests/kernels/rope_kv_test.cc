// RopeKv against the two steps by themselves, on every instruction set and cut of the rows.
#include "kernels/rope_kv/rope_kv.h"

#include <gtest/gtest.h>

#include "kernels/rope/rope.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

constexpr int64_t kContext = 100, kPages = 4, kSequences = 2;

// Rows of two sequences, with room between the rows of each matrix.
struct Problem {
  Problem(KvType type, int64_t m, int64_t heads, int64_t kv_heads, int64_t width)
      : cosine(static_cast<size_t>(kContext * width / 2)),
        sine(cosine.size()),
        q(RandomFloats(m * (heads * width + 3), 1)),
        k(RandomFloats(m * (kv_heads * width + 1), 2)),
        v(RandomFloats(m * (kv_heads * width + 2), 3)),
        cache(static_cast<size_t>(2 * kPages * KvPageBytes(type, kv_heads, width)), '\7') {
    RopeTable(kContext, width, 10000.0, {}, cosine.data(), sine.data());
    for (int64_t row = 0; row < m; ++row) {
      positions.push_back(static_cast<int32_t>((37 * row + 31) % kContext));
      sequences.push_back(static_cast<int32_t>(row % kSequences));
    }
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
  Problem(const Problem&) = delete;

  void TwoSteps() {
    Rope(q.data(), args.rows.m, args.heads, args.head_width, args.ldq, positions.data(),
         cosine.data(), sine.data(), RopeDirection::kForward, SerialFor);
    Rope(k.data(), args.rows.m, args.kv_heads, args.head_width, args.ldk, positions.data(),
         cosine.data(), sine.data(), RopeDirection::kForward, SerialFor);
    WriteKv(k.data(), args.ldk, v.data(), args.ldv, args.kv_heads, args.head_width, args.rows,
            args.cache, SerialFor);
  }

  std::vector<float> cosine, sine, q, k, v;
  std::vector<char> cache;
  std::vector<int32_t> positions, sequences, tables;
  RopeKvArgs args;
};

TEST(RopeKv, EqualsTheTwoSteps) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    for (const int64_t m : {0, 1, 7, 40}) {
      for (const int64_t width : {2, 6, 64, 200}) {
        for (const int64_t kv_heads : {1, 3}) {
          Problem want(type, m, 2 * kv_heads, kv_heads, width);
          want.TwoSteps();
          ForEachIsa([&](Isa isa) {
            for (const ParallelFor& cut :
                 {ParallelFor(SerialFor), ParallelFor(UnevenFor), ParallelFor(OneByOneFor)}) {
              Problem found(type, m, 2 * kv_heads, kv_heads, width);
              RopeKv(found.args, cut);
              EXPECT_TRUE(SameBits(found.q, want.q)) << ToString(isa) << ", width " << width;
              EXPECT_TRUE(found.cache == want.cache) << ToString(isa) << ", width " << width;
            }
          });
        }
      }
    }
  }
}

}  // namespace
}  // namespace tern::kernels
