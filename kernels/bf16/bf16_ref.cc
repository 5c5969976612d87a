// Scalar oracle of the bfloat16 conversions.
#include "kernels/bf16/bf16_impl.h"
#include "kernels/common/half.h"

namespace tern::kernels {
void RoundToBf16Ref(const float* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = FloatFromBfloat(BfloatFromFloat(x[i]));
}

void Fp32ToBf16Ref(const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = BfloatFromFloat(x[i]);
}

void Bf16ToFp32Ref(const uint16_t* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = FloatFromBfloat(x[i]);
}

}  // namespace tern::kernels
