// The bfloat16 conversions on vectors of 4 floats.
#include "kernels/bf16/bf16_impl.h"
#include "kernels/bf16/bf16_vec.h"

namespace tern::kernels {

void RoundToBf16Neon(const float* x, int64_t count, float* out) {
  Bf16Vec<4>::RoundAll(x, count, out);
}
void Fp32ToBf16Neon(const float* x, int64_t count, uint16_t* out) {
  Bf16Vec<4>::Narrow(x, count, out);
}
void Bf16ToFp32Neon(const uint16_t* x, int64_t count, float* out) {
  Bf16Vec<4>::Widen(x, count, out);
}

}  // namespace tern::kernels
