// The stable sum of exponentials on vectors of W floats, for cross_entropy_avx2.cc,
// cross_entropy_avx512.cc and cross_entropy_neon.cc, in the lane order of common/lanes.h.
#pragma once

#include <cstdint>

#include "kernels/common/exp.h"
#include "kernels/common/lanes.h"
#include "kernels/common/vec.h"

namespace tern::kernels {

template <int W>
float MaxVec(const float* z, int64_t v) {
  float top = z[0];
  int64_t i = 0;
  if (v >= W) {
    VecF<W> max = Load<W>(z);
    for (i = W; i + W <= v; i += W) {
      const VecF<W> next = Load<W>(z + i);
      max = max < next ? next : max;
    }
    for (int l = 0; l < W; ++l) top = top < max[l] ? max[l] : top;
  }
  for (; i < v; ++i) top = top < z[i] ? z[i] : top;
  return top;
}

template <int W>
float SumExpVec(const float* z, int64_t v, float* max, float* exponentials) {
  using F = VecF<W>;
  using U = typename Vec<W>::U;
  constexpr int kRegisters = static_cast<int>(kLanes) / W;
  const float top = MaxVec<W>(z, v);
  *max = top;
  F acc[kRegisters] = {};
  int64_t i = 0;
  for (; i + kLanes <= v; i += kLanes) {
    for (int r = 0; r < kRegisters; ++r) {
      const F e = ExpOf<F, U>(Load<W>(z + i + r * W) - top);
      acc[r] += e;
      if (exponentials != nullptr) Store(exponentials + i + r * W, e);
    }
  }
  float lanes[kLanes];
  for (int r = 0; r < kRegisters; ++r) Store(lanes + r * W, acc[r]);
  for (; i < v; ++i) {
    const float e = ExpOf<float, uint32_t>(z[i] - top);
    lanes[i % kLanes] += e;
    if (exponentials != nullptr) exponentials[i] = e;
  }
  return JoinLanes(lanes);
}

template <int W>
void ScaleVec(float* z, int64_t v, float inv_sum, float scale) {
  int64_t i = 0;
  for (; i + W <= v; i += W) Store(z + i, Load<W>(z + i) * inv_sum * scale);
  for (; i < v; ++i) z[i] = z[i] * inv_sum * scale;
}

}  // namespace tern::kernels
