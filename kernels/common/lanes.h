// The one order in which the reductions of norms and losses add up: kLanes partial sums, lane l
// taking the elements l, l + kLanes, ..., then halves added pairwise. A register of 16 floats, two
// of 8 or a plain array all give it.
#pragma once

#include <cstdint>

namespace tern::kernels {

inline constexpr int64_t kLanes = 16;

// Joins the partial sums: 16 to 8 to 4 to 2 to 1. Overwrites them.
static inline float JoinLanes(float* lanes) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

}  // namespace tern::kernels
