// RopeKv against the two steps by themselves, on every instruction set and cut of the rows.
#include "kernels/rope_kv/rope_kv.h"

#include <gtest/gtest.h>

#include "tests/kernels/rope_kv_problem.h"

namespace tern::kernels {
namespace {

void TakeTwoSteps(RopeKvProblem* p) {
  const RopeKvArgs& a = p->args;
  const auto rotate = [&](std::vector<float>& x, int64_t heads, int64_t ldx) {
    Rope(x.data(), a.rows.m, heads, a.head_width, ldx, a.rows.positions, a.cos_table, a.sin_table,
         RopeDirection::kForward, SerialFor);
  };
  rotate(p->q, a.heads, a.ldq);
  rotate(p->k, a.kv_heads, a.ldk);
  WriteKv(a.k, a.ldk, a.v, a.ldv, a.kv_heads, a.head_width, a.rows, a.cache, SerialFor);
}

TEST(RopeKv, EqualsTheTwoSteps) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    for (const int64_t m : {0, 1, 7, 40}) {
      for (const int64_t width : {2, 6, 64, 200}) {
        for (const int64_t kv_heads : {1, 3}) {
          RopeKvProblem want(type, m, 2 * kv_heads, kv_heads, width);
          TakeTwoSteps(&want);
          ForEachIsa([&](Isa isa) {
            for (const ParallelFor& cut :
                 {ParallelFor(SerialFor), ParallelFor(UnevenFor), ParallelFor(OneByOneFor)}) {
              RopeKvProblem found(type, m, 2 * kv_heads, kv_heads, width);
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
