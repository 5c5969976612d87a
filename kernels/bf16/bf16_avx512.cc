// The bfloat16 conversions on vectors of 16 floats.
#include "kernels/bf16/bf16_impl.h"
#include "kernels/bf16/bf16_vec.h"

namespace tern::kernels {

void RoundToBf16Avx512(const float* x, int64_t count, float* out) {
  Bf16Vec<16>::RoundAll(x, count, out);
}
void Fp32ToBf16Avx512(const float* x, int64_t count, uint16_t* out) {
  Bf16Vec<16>::Narrow(x, count, out);
}
void Bf16ToFp32Avx512(const uint16_t* x, int64_t count, float* out) {
  Bf16Vec<16>::Widen(x, count, out);
}

}  // namespace tern::kernels
