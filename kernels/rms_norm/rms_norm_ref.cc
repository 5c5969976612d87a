// Scalar oracle of RMSNorm: the lanes of the sums spelled out, everything else straight from the
// formulas.
#include <cmath>

#include "kernels/common/lanes.h"
#include "kernels/rms_norm/rms_norm_impl.h"

namespace tern::kernels {

void RmsNormForwardRef(const float* x, const float* g, int64_t row_begin, int64_t row_end,
                       int64_t d, float eps, float* y, float* inv_rms) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* xr = x + row * d;
    float lanes[kLanes] = {};
    for (int64_t i = 0; i < d; ++i) lanes[i % kLanes] += xr[i] * xr[i];
    const float inv = 1.0f / std::sqrt(JoinLanes(lanes) / static_cast<float>(d) + eps);
    inv_rms[row] = inv;
    for (int64_t i = 0; i < d; ++i) y[row * d + i] = xr[i] * inv * g[i];
  }
}

void RmsNormBackwardRef(const float* dy, const float* x, const float* g, const float* inv_rms,
                        int64_t row_begin, int64_t row_end, int64_t d, float* dx, float* dg) {
  for (int64_t i = 0; i < d; ++i) dg[i] = 0.0f;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* dyr = dy + row * d;
    const float* xr = x + row * d;
    float lanes[kLanes] = {};
    for (int64_t i = 0; i < d; ++i) lanes[i % kLanes] += dyr[i] * g[i] * xr[i];
    const float inv = inv_rms[row];
    const float slope = inv * inv * inv * (JoinLanes(lanes) / static_cast<float>(d));
    for (int64_t i = 0; i < d; ++i) {
      const float dyi = dyr[i];
      dg[i] += dyi * xr[i] * inv;
      dx[row * d + i] = dyi * g[i] * inv - xr[i] * slope;
    }
  }
}

}  // namespace tern::kernels
