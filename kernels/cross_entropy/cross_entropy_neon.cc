// The stable sum of exponentials on vectors of 4 floats.
#include "kernels/cross_entropy/cross_entropy_impl.h"
#include "kernels/cross_entropy/cross_entropy_vec.h"

namespace tern::kernels {

float SumExpNeon(const float* z, int64_t v, float* max, float* exponentials) {
  return SumExpVec<4>(z, v, max, exponentials);
}

void ScaleNeon(float* z, int64_t v, float inv_sum, float scale) {
  ScaleVec<4>(z, v, inv_sum, scale);
}

}  // namespace tern::kernels
