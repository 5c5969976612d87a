// Scalar oracle of the stable sum of exponentials.
#include "kernels/common/exp.h"
#include "kernels/common/lanes.h"
#include "kernels/cross_entropy/cross_entropy_impl.h"

namespace tern::kernels {

float SumExpRef(const float* z, int64_t v, float* max, float* exponentials) {
  float top = z[0];
  for (int64_t i = 1; i < v; ++i) top = top < z[i] ? z[i] : top;
  *max = top;
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < v; ++i) {
    const float e = Exp(z[i] - top);
    lanes[i % kLanes] += e;
    if (exponentials != nullptr) exponentials[i] = e;
  }
  return JoinLanes(lanes);
}

void ScaleRef(float* z, int64_t v, float inv_sum, float scale) {
  for (int64_t i = 0; i < v; ++i) z[i] = z[i] * inv_sum * scale;
}

}  // namespace tern::kernels
