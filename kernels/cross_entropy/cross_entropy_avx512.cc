// The stable sum of exponentials on vectors of 16 floats.
#include "kernels/cross_entropy/cross_entropy_impl.h"
#include "kernels/cross_entropy/cross_entropy_vec.h"

namespace tern::kernels {

float SumExpAvx512(const float* z, int64_t v, float* max, float* exponentials) {
  return SumExpVec<16>(z, v, max, exponentials);
}

void ScaleAvx512(float* z, int64_t v, float inv_sum, float scale) {
  ScaleVec<16>(z, v, inv_sum, scale);
}

}  // namespace tern::kernels
