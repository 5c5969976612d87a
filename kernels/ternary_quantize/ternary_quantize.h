// Absmean ternary quantization of a weight matrix (BitNet b1.58, arXiv 2402.17764): beta =
// max(mean|W|, 1e-5), codes = clamp(rint(W * (1/beta)), -1, 1), round half to even, packed as T2.
// mean|W| is summed in one fixed order (fp32, left to right, in blocks of 4,096 elements of the
// row-major matrix; block sums joined left to right in fp64), so it does not depend on threads,
// ranks or the instruction set.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

inline constexpr float kScaleFloor = 1e-5f;  // beta of an all-zero matrix.
inline constexpr int64_t kAbsMeanBlock =
    4096;  // Elements a partial sum; part of the definition of beta.

// beta of `count` weights. 0 elements give kScaleFloor. NaN and Inf propagate: the caller refuses
// them.
float TernaryScale(const float* w, int64_t count, const ParallelFor& parallel);

struct TernaryCounts {
  int64_t zeros = 0;  // Codes equal to 0.
  int64_t flips = 0;  // Codes that differ from `previous` (0 when there is none).
};

// Packs w [n, k] into t2 [n, T2RowBytes(k)]. `previous` (same layout, may be null) is compared for
// flips; it may be `t2` itself, which is then overwritten.
TernaryCounts TernaryQuantize(const float* w, int64_t n, int64_t k, float beta, uint8_t* t2,
                              const uint8_t* previous, const ParallelFor& parallel);

}  // namespace tern::kernels
