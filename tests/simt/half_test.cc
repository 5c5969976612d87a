// 16-bit floats in the emulator: every value comes back, every midpoint goes to even, and the
// paired operations round once.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/simt/intrin_half.h"

namespace tern::simt {
namespace {

// `infinite`: the bits of infinity; all below are finite and in the order of their values.
template <class Encode, class Decode>
void ExpectRounding(uint16_t infinite, const Encode& encode, const Decode& decode) {
  for (uint32_t bits = 0; bits < infinite; ++bits) {
    const double value = decode(static_cast<uint16_t>(bits));
    ASSERT_EQ(encode(value), bits);
    ASSERT_EQ(encode(-value), bits | 0x8000u);
    if (bits + 1u == infinite) break;
    const double next = decode(static_cast<uint16_t>(bits + 1)), middle = (value + next) / 2;
    ASSERT_EQ(encode(middle), bits + bits % 2) << bits;
    ASSERT_EQ(encode(std::nextafter(middle, 0.0)), bits) << bits;
    ASSERT_EQ(encode(std::nextafter(middle, next)), bits + 1) << bits;
  }
  EXPECT_EQ(encode(INFINITY), infinite);
  EXPECT_EQ(encode(-INFINITY), infinite | 0x8000u);
  EXPECT_TRUE(std::isnan(decode(encode(std::nan("")))));
}

TEST(HalfTest, EveryValueAndMidpointRounds) {
  ExpectRounding(0x7C00, EncodeF16, kernels::FloatFromHalf);
  ExpectRounding(0x7F80, EncodeBf16, kernels::FloatFromBfloat);
  EXPECT_EQ(EncodeF16(65519.99), 0x7BFF);  // The largest; from half a unit beyond on infinity.
  EXPECT_EQ(EncodeF16(65520.0), 0x7C00);
}

TEST(HalfTest, PairsAreComputedApartAndRoundedOnce) {
  // 2048 + 1 is no half: to even. 3 * 1/3 + (-1) keeps what a product rounded before would lose.
  EXPECT_EQ(SubtractF16x2(0x3C006800u, 0xBC00BC00u), 0x40006800u);
  const uint16_t third = EncodeF16(1.0 / 3.0);
  const double expected = 3.0 * kernels::FloatFromHalf(third) - 1.0;
  EXPECT_NE(expected, 0.0);
  EXPECT_EQ(MultiplyAddF16x2(third, 0x4200u, 0xBC00u) & 0xFFFFu, EncodeF16(expected));
  EXPECT_EQ(MultiplyAddBf16x2(0x43070000u, 0x3F800000u, 0xC3080000u) >> 16, 0xBF80u);
  EXPECT_EQ(AndOr(0x12345678u, 0x000F000Fu, 0x64006400u), 0x64046408u);
  EXPECT_EQ(FloatFromF16(0x3E00), 1.5f);
  EXPECT_EQ(FloatFromBf16(0xBFC0), -1.5f);
  // Ties to even, both ways.
  EXPECT_EQ(PackBf16(1.00390625f, -1.01171875f), 0xBF823F80u);
}

}  // namespace
}  // namespace tern::simt
