// The stable sum of exponentials on vectors of 8 floats.
#include "kernels/cross_entropy/cross_entropy_impl.h"
#include "kernels/cross_entropy/cross_entropy_vec.h"

namespace tern::kernels {

float SumExpAvx2(const float* z, int64_t v, float* max, float* exponentials) {
  return SumExpVec<8>(z, v, max, exponentials);
}

void ScaleAvx2(float* z, int64_t v, float inv_sum, float scale) {
  ScaleVec<8>(z, v, inv_sum, scale);
}

}  // namespace tern::kernels
