// The E4M3 casts on vectors of 16 floats.
#include "kernels/fp8/fp8_impl.h"
#include "kernels/fp8/fp8_vec.h"

namespace tern::kernels {

void Fp32ToE4M3RangeAvx512(const float* x, int64_t count, uint8_t* out) {
  Fp8Vec<16>::EncodeAll(x, count, out);
}
void E4M3ToFp32RangeAvx512(const uint8_t* x, int64_t count, float* out) {
  Fp8Vec<16>::DecodeAll(x, count, out);
}

}  // namespace tern::kernels
