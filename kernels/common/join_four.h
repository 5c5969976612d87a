// JoinLanes (lanes.h) of many sums of 16 lanes, four at a time: the same order of additions, so the
// same bits, at a third of the instructions. For the tiles of products, whose sums are short for
// models of a few hundred channels.
#pragma once

#include "kernels/common/inline.h"
#include "kernels/common/lanes.h"

namespace tern::kernels {

// Four floats in the compiler's own vector type.
typedef float Quad __attribute__((vector_size(16)));

// Of each of four: lanes 0 + 2 and 1 + 3, then those two.
static TERN_INLINE Quad JoinFour(Quad a, Quad b, Quad c, Quad d) {
  const Quad ab =
      __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
  const Quad cd =
      __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
  return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

// out[r][m] = JoinLanes of acc[r][m]. V::Fold(F): 16 lanes to 8 to 4, as a Quad.
template <class V, int R, int M>
static TERN_INLINE void JoinTile(const typename V::F (&acc)[R][M], float (&out)[R][M]) {
  const auto fold = [&](int i) { return (Quad)V::Fold(acc[i / M][i % M]); };
  constexpr int kCount = R * M, kFours = kCount / 4 * 4;
#pragma GCC unroll 8
  for (int i = 0; i < kFours; i += 4) {
    const Quad sums = JoinFour(fold(i), fold(i + 1), fold(i + 2), fold(i + 3));
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) out[(i + j) / M][(i + j) % M] = sums[j];
  }
#pragma GCC unroll 4
  for (int i = kFours; i < kCount; ++i) {
    const Quad sum = fold(i);
    out[i / M][i % M] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
  }
}

}  // namespace tern::kernels
