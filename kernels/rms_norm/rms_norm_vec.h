// RMSNorm on vectors of W floats, for rms_norm_avx2.cc,
// rms_norm_avx512.cc and rms_norm_neon.cc. 16 / W registers
// hold the 16 partial sums of common/lanes.h, so every width adds in the oracle's order.
#pragma once

#include <cstdint>

#include "kernels/common/lanes.h"
#include "kernels/common/vec.h"

namespace tern::kernels {

template <int W>
struct RmsNormVec {
  using F = VecF<W>;
  static constexpr int kRegisters = static_cast<int>(kLanes) / W;

  // sum_i term(i) in lane order: `vector(i)` gives W terms from i, `scalar(i)` one.
  template <class VectorTerm, class ScalarTerm>
  static inline __attribute__((always_inline)) float Sum(int64_t d, VectorTerm vector,
                                                         ScalarTerm scalar) {
    F acc[kRegisters] = {};
    int64_t i = 0;
    for (; i + kLanes <= d; i += kLanes) {
      for (int r = 0; r < kRegisters; ++r) acc[r] += vector(i + r * W);
    }
    float lanes[kLanes];
    for (int r = 0; r < kRegisters; ++r) Store(lanes + r * W, acc[r]);
    for (; i < d; ++i) lanes[i % kLanes] += scalar(i);
    return JoinLanes(lanes);
  }

  static void Forward(const float* x, const float* g, int64_t row_begin, int64_t row_end, int64_t d,
                      float eps, float* y, float* inv_rms) {
    for (int64_t row = row_begin; row < row_end; ++row) {
      const float* xr = x + row * d;
      float* yr = y + row * d;
      const float sum = Sum(
          d,
          [xr](int64_t i) {
            const F v = Load<W>(xr + i);
            return v * v;
          },
          [xr](int64_t i) { return xr[i] * xr[i]; });
      const float inv = 1.0f / __builtin_sqrtf(sum / static_cast<float>(d) + eps);
      inv_rms[row] = inv;
      int64_t i = 0;
      for (; i + W <= d; i += W) Store(yr + i, Load<W>(xr + i) * inv * Load<W>(g + i));
      for (; i < d; ++i) yr[i] = xr[i] * inv * g[i];
    }
  }

  static void Backward(const float* dy, const float* x, const float* g, const float* inv_rms,
                       int64_t row_begin, int64_t row_end, int64_t d, float* dx, float* dg) {
    for (int64_t i = 0; i < d; ++i) dg[i] = 0.0f;
    for (int64_t row = row_begin; row < row_end; ++row) {
      const float* dyr = dy + row * d;
      const float* xr = x + row * d;
      float* dxr = dx + row * d;
      const float dot = Sum(
          d, [=](int64_t i) { return Load<W>(dyr + i) * Load<W>(g + i) * Load<W>(xr + i); },
          [=](int64_t i) { return dyr[i] * g[i] * xr[i]; });
      const float inv = inv_rms[row];
      const float slope = inv * inv * inv * (dot / static_cast<float>(d));
      int64_t i = 0;
      for (; i + W <= d; i += W) {
        const F dyi = Load<W>(dyr + i), xi = Load<W>(xr + i);
        Store(dg + i, Load<W>(dg + i) + dyi * xi * inv);
        Store(dxr + i, dyi * Load<W>(g + i) * inv - xi * slope);
      }
      for (; i < d; ++i) {
        const float dyi = dyr[i], xi = xr[i];
        dg[i] += dyi * xi * inv;
        dxr[i] = dyi * g[i] * inv - xi * slope;
      }
    }
  }
};

}  // namespace tern::kernels
