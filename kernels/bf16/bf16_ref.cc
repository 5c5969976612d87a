// Scalar oracle of the bfloat16 conversions.
#include <bit>

#include "kernels/bf16/bf16_impl.h"

namespace tern::kernels {
namespace {

uint16_t Round(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  if (is_nan) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  // Half of the dropped part, one less when the kept part is even: ties go to even.
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace

void RoundToBf16Ref(const float* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(Round(x[i])) << 16);
}

void Fp32ToBf16Ref(const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = Round(x[i]);
}

void Bf16ToFp32Ref(const uint16_t* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(x[i]) << 16);
}

}  // namespace tern::kernels
