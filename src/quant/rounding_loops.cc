// See rounding_loops.h: the scalar oracles and the choice of a version.
#include "quant/rounding_loops.h"

#include "kernels/common/versions.h"
#include "quant/rounding_loops_impl.h"

// A division of 512 bits takes as long as two of 256, so AVX-512 has no version of its own.
#if defined(__x86_64__)
#define TERN_ACTIVE_LOOP(op) kernels::PickVersion(op##Ref, op##Avx2, op##Avx2, op##Avx2)
#else
#define TERN_ACTIVE_LOOP(op) op##Ref
#endif

namespace tern::quant {
namespace {

constexpr int64_t kLanes = 8;

}  // namespace

double RoundingErrorRef(const WeightBlock& block, const Grid& grid, float s, float zero) {
  const auto squared = [&](const float* w, int64_t i) {
    const float difference = (RoundToGrid(grid, w[i] / s + zero) - zero) * s - w[i];
    return difference * difference * (block.importance != nullptr ? block.importance[i] : 1.0f);
  };
  double total = 0;
  for (int64_t row = 0; row < block.rows; ++row) {
    const float* w = block.w + row * block.ldw;
    float lanes[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= block.columns; i += kLanes)
      for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += squared(w, i + lane);
    for (; i < block.columns; ++i) lanes[0] += squared(w, i);
    for (const float lane : lanes) total += double{lane};
  }
  return total;
}

void SubtractScaledRef(const float* x, float a, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] -= a * x[i];
}

double RoundingError(const WeightBlock& block, const Grid& grid, float s, float zero) {
  return TERN_ACTIVE_LOOP(RoundingError)(block, grid, s, zero);
}

void SubtractScaled(const float* x, float a, int64_t n, float* y) {
  TERN_ACTIVE_LOOP(SubtractScaled)(x, a, n, y);
}

}  // namespace tern::quant
