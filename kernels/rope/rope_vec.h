// Rotary embedding on vectors of W floats, for rope_avx2.cc,
// rope_avx512.cc and rope_neon.cc.
#pragma once

#include <cstdint>

#include "kernels/common/vec.h"

namespace tern::kernels {

template <int W>
void RopeRowVec(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
                float sign) {
  for (int64_t head = 0; head < heads; ++head) {
    float* low = x + head * 2 * half;
    float* high = low + half;
    int64_t i = 0;
    for (; i + W <= half; i += W) {
      const VecF<W> a = Load<W>(low + i), b = Load<W>(high + i);
      const VecF<W> c = Load<W>(cosine + i), s = Load<W>(sine + i) * sign;
      Store(low + i, a * c - b * s);
      Store(high + i, b * c + a * s);
    }
    for (; i < half; ++i) {
      const float a = low[i], b = high[i], s = sign * sine[i];
      low[i] = a * cosine[i] - b * s;
      high[i] = b * cosine[i] + a * s;
    }
  }
}

}  // namespace tern::kernels
