// One E4M3 value there and back, and ranges of them.
#include <cmath>
#include <cstring>

#include "kernels/fp8/fp8.h"
#include "kernels/fp8/fp8_impl.h"

namespace tern::kernels {
namespace {

constexpr uint8_t kNan = 0x7F, kLargest = 0x7E;
constexpr int kDroppedBits = 23 - 3, kRebias = 127 - 7;
constexpr float kSmallestNormal = 0x1p-6f;
// At this size the unit of fp32 is 2^-9, the unit of E4M3's subnormals: adding it rounds to them.
constexpr float kSubnormalRounder = 0x1p14f;

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

}  // namespace

uint8_t Fp32ToE4M3Ref(float x) {
  if (std::isnan(x)) return kNan;
  const auto sign = static_cast<uint8_t>(Bits(x) >> 24 & 0x80u);
  const float size = std::fabs(x);
  if (size > kE4M3Max) return sign | kLargest;
  if (size < kSmallestNormal) {
    return static_cast<uint8_t>(sign | (Bits(size + kSubnormalRounder) - Bits(kSubnormalRounder)));
  }
  // To nearest, ties to even: half of the dropped part, less one where the kept part is even.
  const uint32_t bits = Bits(size);
  const uint32_t rounded = bits + (1u << (kDroppedBits - 1)) - 1 + (bits >> kDroppedBits & 1u);
  return static_cast<uint8_t>(sign | ((rounded >> kDroppedBits) - (kRebias << 3)));
}

float E4M3ToFp32Ref(uint8_t code) {
  const uint32_t exponent = code >> 3 & 15u, fraction = code & 7u;
  const bool negative = (code & 0x80u) != 0;
  if (exponent == 15 && fraction == 7) return std::nanf("");
  float size = static_cast<float>(fraction) * 0x1p-9f;
  if (exponent != 0) {
    const uint32_t bits = (exponent + kRebias) << 23 | fraction << kDroppedBits;
    std::memcpy(&size, &bits, sizeof(size));
  }
  return negative ? -size : size;
}

void Fp32ToE4M3RangeRef(const float* x, int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = Fp32ToE4M3Ref(x[i]);
}

void E4M3ToFp32RangeRef(const uint8_t* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = E4M3ToFp32Ref(x[i]);
}

}  // namespace tern::kernels
