// fp16 and bfloat16 conversions, over all 65,536 patterns and at every rounding boundary.
#include "formats/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"
#include "formats/half_rows.h"

namespace tern::formats {
namespace {

bool IsNanHalf(uint16_t bits) { return (bits & 0x7FFF) > 0x7C00; }

// The value by the definition of binary16: 5 bits of exponent (bias 15), 10 of fraction.
double HalfByDefinition(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(HalfTest, EveryFp16HasItsValueAndComesBack) {
  for (uint32_t i = 0; i <= 0xFFFF; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    const float value = Fp16ToFp32(bits);
    if (IsNanHalf(bits)) {
      ASSERT_TRUE(std::isnan(value)) << i;
      ASSERT_TRUE(IsNanHalf(Fp32ToFp16(value))) << i;
      ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << i;
      continue;
    }
    ASSERT_EQ(double{value}, HalfByDefinition(bits)) << i;
    ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << i;  // -0 too
    ASSERT_EQ(Fp32ToFp16(value), bits) << i;
  }
}

TEST(HalfTest, EveryBf16ComesBack) {
  for (uint32_t i = 0; i <= 0xFFFF; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    const float value = Bf16ToFp32(bits);
    ASSERT_EQ(std::bit_cast<uint32_t>(value), i << 16);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(Bf16ToFp32(Fp32ToBf16(value)))) << i;
    } else {
      ASSERT_EQ(Fp32ToBf16(value), bits) << i;
    }
  }
}

// Between two neighbours: below the midpoint the lower one, above it the upper one, on it the even.
// The midpoint of two halves and its fp32 neighbours are exact in fp32.
template <class ToHalf, class ToFloat>
void ExpectNearestEven(uint32_t last_finite, ToHalf to_half, ToFloat to_float) {
  for (uint32_t i = 0; i < last_finite; ++i) {
    const uint16_t low = static_cast<uint16_t>(i), high = static_cast<uint16_t>(i + 1);
    const float middle = static_cast<float>((double{to_float(low)} + double{to_float(high)}) / 2);
    ASSERT_EQ(to_half(middle), i % 2 == 0 ? low : high) << i;
    ASSERT_EQ(to_half(std::nextafter(middle, 0.0f)), low) << i;
    ASSERT_EQ(to_half(std::nextafter(middle, INFINITY)), high) << i;
    ASSERT_EQ(to_half(-middle), (i % 2 == 0 ? low : high) | 0x8000) << i;
  }
}

TEST(HalfTest, Fp16RoundsToNearestEven) {
  ExpectNearestEven(0x7BFF, Fp32ToFp16, Fp16ToFp32);
  // 65520 is halfway between the largest half and 2^16: to even, that is Inf.
  EXPECT_EQ(Fp32ToFp16(std::nextafter(65520.0f, 0.0f)), 0x7BFF);
  EXPECT_EQ(Fp32ToFp16(65520.0f), 0x7C00);
  EXPECT_EQ(Fp32ToFp16(-65520.0f), 0xFC00);
  EXPECT_EQ(Fp32ToFp16(std::numeric_limits<float>::max()), 0x7C00);
}

TEST(HalfTest, Bf16RoundsToNearestEven) {
  ExpectNearestEven(0x7F7F, Fp32ToBf16, Bf16ToFp32);
  EXPECT_EQ(Fp32ToBf16(std::numeric_limits<float>::max()), 0x7F80);  // Above the last midpoint
}

TEST(HalfTest, NanIsKeptWhateverItsPayload) {
  for (const uint32_t payload : {1u, 0x1000u, 0x1FFFu, 0x2000u, 0x7FFFu, 0x400000u, 0x7FFFFFu}) {
    for (const uint32_t sign : {0u, 0x80000000u}) {
      const float nan = std::bit_cast<float>(sign | 0x7F800000u | payload);
      EXPECT_TRUE(IsNanHalf(Fp32ToFp16(nan))) << payload;
      EXPECT_TRUE(std::isnan(Bf16ToFp32(Fp32ToBf16(nan)))) << payload;
    }
  }
  EXPECT_EQ(Fp32ToFp16(INFINITY), 0x7C00);
  EXPECT_EQ(Fp32ToBf16(-INFINITY), 0xFF80);
}

// |fp16(x) - x| <= |x| 2^-11 in the normal range, 2^-25 below it.
TEST(HalfTest, RandomValuesAreWithinHalfAUnit) {
  RandomStream random(7, "half");
  for (int i = 0; i < 200'000; ++i) {
    const float x = random.NextNormal() * std::ldexp(1.0f, static_cast<int>(i % 36) - 22);
    const double bound = std::max(std::fabs(double{x}) * 0x1p-11, 0x1p-25);
    ASSERT_LE(std::fabs(double{Fp16ToFp32(Fp32ToFp16(x))} - double{x}), bound) << x;
    ASSERT_LE(std::fabs(double{Bf16ToFp32(Fp32ToBf16(x))} - double{x}),
              std::fabs(double{x}) * 0x1p-8);
  }
}

// Goal: the processor's conversion and ours are one function: every value, every length of the rest
// after eights, odd addresses.
TEST(HalfRowsTest, EveryValueAtEveryPlaceIsTheScalarOne) {
  std::vector<uint8_t> bytes(1 + 2 * 65536);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    bytes[1 + 2 * bits] = static_cast<uint8_t>(bits);
    bytes[2 + 2 * bits] = static_cast<uint8_t>(bits >> 8);
  }
  std::vector<float> out(65536);
  for (int64_t offset = 0; offset < 9; ++offset) {
    const int64_t count = 65536 - offset;
    DecodeFp16(bytes.data() + 1 + 2 * offset, count, out.data());
    for (int64_t i = 0; i < count; ++i) {
      const float want = Fp16ToFp32(static_cast<uint16_t>(i + offset));
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(out[static_cast<size_t>(i)])) << i + offset;
      } else {
        ASSERT_EQ(std::bit_cast<uint32_t>(out[static_cast<size_t>(i)]),
                  std::bit_cast<uint32_t>(want))
            << i + offset;
      }
    }
  }
}

}  // namespace
}  // namespace tern::formats
