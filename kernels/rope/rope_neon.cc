// Rotary embedding on vectors of 4 floats.
#include "kernels/rope/rope_impl.h"
#include "kernels/rope/rope_vec.h"

namespace tern::kernels {

void RopeRowNeon(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
                 float sign) {
  RopeRowVec<4>(x, heads, half, cosine, sine, sign);
}

}  // namespace tern::kernels
