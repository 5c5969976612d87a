// RMSNorm (Zhang and Sennrich, arXiv 1910.07467), forward and backward, fp32.
//   y[i] = x[i] * inv_rms * g[i],  inv_rms = 1 / sqrt(mean(x^2) + eps)
// Order of the sums: 16 partial sums a row (common/lanes.h), added pairwise; the
// partial dg of kRmsNormRowBlock rows are joined in row order. So the result depends neither on the
// number of threads nor on the instruction set.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

inline constexpr int64_t kRmsNormRowBlock = 64;

// x, y: [m, d] (y may be x). g: [d]. inv_rms: [m].
void RmsNormForward(const float* x, const float* g, int64_t m, int64_t d, float eps, float* y,
                    float* inv_rms, const ParallelFor& parallel);

// dy, x, dx: [m, d] (dx may be dy). dg: [d], overwritten with the sum over the m rows.
//   dx[i] = inv_rms * (dy[i] g[i] - x[i] inv_rms^2 mean_j(dy[j] g[j] x[j])),  dg[i] = sum_m dy[i]
//   x[i] inv_rms
void RmsNormBackward(const float* dy, const float* x, const float* g, const float* inv_rms,
                     int64_t m, int64_t d, float* dx, float* dg, const ParallelFor& parallel);

}  // namespace tern::kernels
