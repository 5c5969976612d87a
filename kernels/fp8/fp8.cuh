// E4M3 values one at a time on a GPU, with the bits of fp8_ref.cc: by integer arithmetic, because
// the instruction is there from sm_89 on only.
#pragma once

#include <cstdint>

#include "kernels/common/half.h"
#include "kernels/simt/intrin.h"

namespace tern::kernels {

// FP8 E4M3 has fp16's layout with three bits of fraction and an exponent smaller by 8. NaN, which
// no file that is read may hold, comes out as 480.
TERN_DEVICE float FloatFromE4m3(uint8_t code) {
  const unsigned half = (code & 0x80u) << 8 | (code & 0x7Fu) << 7;
  return 256.0f * FloatFromHalf(static_cast<uint16_t>(half));
}

// To nearest, ties to even, saturating; NaN becomes 0x7F. As Fp32ToE4M3Ref.
TERN_DEVICE uint8_t E4m3FromFloat(float value) {
  constexpr float kSmallestNormal = 0x1p-6f, kLargest = 448.0f;
  constexpr float kSubnormalRounder = 0x1p14f;  // Where the unit of fp32 is 2^-9
  const uint32_t bits = HalfFloatBits(value), sign = bits >> 24 & 0x80u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  const float size = HalfBitsFloat(magnitude);
  if (magnitude > 0x7F800000u) return 0x7F;
  uint32_t code = 0x7E;
  if (size < kSmallestNormal) {
    code = HalfFloatBits(size + kSubnormalRounder) - HalfFloatBits(kSubnormalRounder);
  } else if (size <= kLargest) {
    // Half of the dropped part, less one where the kept part is even; the bias goes from 127 to 7.
    code = ((magnitude + 0x7FFFFu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
  }
  return static_cast<uint8_t>(sign | code);
}

}  // namespace tern::kernels
