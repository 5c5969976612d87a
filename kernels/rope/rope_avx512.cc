// Rotary embedding on vectors of 16 floats.
#include "kernels/rope/rope_impl.h"
#include "kernels/rope/rope_vec.h"

namespace tern::kernels {

void RopeRowAvx512(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
                   float sign) {
  RopeRowVec<16>(x, heads, half, cosine, sine, sign);
}

}  // namespace tern::kernels
