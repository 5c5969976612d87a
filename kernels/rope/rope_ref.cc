// Scalar oracle of the rotary embedding.
#include "kernels/rope/rope_impl.h"

namespace tern::kernels {

void RopeRowRef(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
                float sign) {
  for (int64_t head = 0; head < heads; ++head) {
    float* low = x + head * 2 * half;
    float* high = low + half;
    for (int64_t i = 0; i < half; ++i) {
      const float a = low[i], b = high[i], s = sign * sine[i];
      low[i] = a * cosine[i] - b * s;
      high[i] = b * cosine[i] + a * s;
    }
  }
}

}  // namespace tern::kernels
