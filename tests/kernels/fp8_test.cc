// FP8 E4M3: every code against the definition, every midpoint between neighbours and the floats
// beside it, saturation, and arrays in every cut
// and on every instruction set.
#include "kernels/fp8/fp8.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

// The definition, in fp64: (-1)^s * 2^(max(e, 1) - 7) * ((e > 0) + f / 8).
double Definition(int code) {
  const int exponent = code / 8 % 16, fraction = code % 8;
  const double size =
      std::ldexp((exponent > 0 ? 1.0 : 0.0) + fraction / 8.0, (exponent > 0 ? exponent : 1) - 7);
  return code >= 128 ? -size : size;
}

bool IsNan(int code) { return code % 128 == 127; }

TEST(E4M3Test, AllCodesDecodeExactlyAndComeBack) {
  EXPECT_EQ(Definition(0x7E), 448.0);
  EXPECT_EQ(Definition(0x01), 0x1p-9);
  for (int code = 0; code < 256; ++code) {
    const float value = E4M3ToFp32Ref(static_cast<uint8_t>(code));
    if (IsNan(code)) {
      EXPECT_TRUE(std::isnan(value));
      continue;
    }
    EXPECT_EQ(value, Definition(code)) << code;
    EXPECT_EQ(std::signbit(value), code >= 128) << code;
    EXPECT_EQ(Fp32ToE4M3Ref(value), code);
  }
}

// Between neighbours: just below the midpoint goes down, just above goes up, the midpoint itself to
// the even code. Midpoints need one fraction bit more than the codes: exact in fp32.
TEST(E4M3Test, MidpointsGoToEvenAndNeighboursToTheNearest) {
  for (int sign : {0, 128}) {
    for (int code = 0; code < 126; ++code) {
      const double low = Definition(code), high = Definition(code + 1);
      const auto middle = static_cast<float>((low + high) / 2);
      const float factor = sign == 0 ? 1.0f : -1.0f;
      const float below = std::nextafterf(middle, 0.0f);
      const float above = std::nextafterf(middle, 1e9f);
      EXPECT_EQ(Fp32ToE4M3Ref(factor * below), sign + code);
      EXPECT_EQ(Fp32ToE4M3Ref(factor * above), sign + code + 1);
      EXPECT_EQ(Fp32ToE4M3Ref(factor * middle), sign + code + code % 2);
    }
  }
}

TEST(E4M3Test, SaturatesAndKeepsNan) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (float value : {448.0f, 449.0f, 464.0f, 480.0f, 1e30f, kInf}) {
    EXPECT_EQ(Fp32ToE4M3Ref(value), 0x7E) << value;
    EXPECT_EQ(Fp32ToE4M3Ref(-value), 0xFE) << value;
  }
  EXPECT_EQ(Fp32ToE4M3Ref(std::nanf("")), 0x7F);
  EXPECT_EQ(Fp32ToE4M3Ref(-std::nanf("")), 0x7F);
  EXPECT_EQ(Fp32ToE4M3Ref(0.0f), 0x00);
  EXPECT_EQ(Fp32ToE4M3Ref(-0.0f), 0x80);
  EXPECT_EQ(Fp32ToE4M3Ref(std::numeric_limits<float>::denorm_min()), 0x00);
  EXPECT_EQ(Fp32ToE4M3Ref(0x1p-10f), 0x00);  // Half of the smallest: to even.
}

TEST(E4M3Test, ArraysInEveryCut) {
  for (int64_t count : {0, 1, 255, 40000}) {
    const std::vector<float> x = RandomFloats(count, 3, 200.0f);
    for (const ParallelFor& cut : {ParallelFor(SerialFor), ParallelFor(UnevenFor)}) {
      std::vector<uint8_t> codes(static_cast<size_t>(count));
      std::vector<float> back(static_cast<size_t>(count));
      Fp32ToE4M3(x.data(), count, codes.data(), cut);
      E4M3ToFp32(codes.data(), count, back.data(), cut);
      for (size_t i = 0; i < codes.size(); ++i) {
        ASSERT_EQ(codes[i], Fp32ToE4M3Ref(x[i]));
        ASSERT_EQ(back[i], E4M3ToFp32Ref(codes[i]));
      }
    }
  }
}

// Every code, and floats of every exponent with random bits, on every instruction set.
TEST(E4M3Test, EveryInstructionSetHasTheBitsOfTheOracle) {
  std::vector<uint8_t> codes;
  for (int code = 0; code < 256; ++code) codes.push_back(static_cast<uint8_t>(code));
  std::mt19937 random(11);
  std::vector<float> x;
  for (int i = 0; i < 400'000; ++i) {
    const uint32_t bits = random();
    x.push_back(std::bit_cast<float>(i % 2 == 0 ? bits : (bits & 0x83FFFFFFu) + 0x38000000u));
  }
  for (int code = 0; code < 126; ++code) {  // Midpoints and their neighbours
    const auto middle = static_cast<float>((Definition(code) + Definition(code + 1)) / 2);
    for (float value : {middle, std::nextafterf(middle, 0.0f), std::nextafterf(middle, 1e9f)})
      x.insert(x.end(), {value, -value});
  }
  for (float value : {0.0f, -0.0f, HUGE_VALF, -HUGE_VALF, std::nanf(""), -std::nanf("")})
    x.push_back(value);
  ForEachIsa([&](Isa) {
    std::vector<float> decoded(codes.size());
    std::vector<uint8_t> encoded(x.size());
    E4M3ToFp32(codes.data(), 256, decoded.data(), SerialFor);
    Fp32ToE4M3(x.data(), static_cast<int64_t>(x.size()), encoded.data(), SerialFor);
    for (size_t i = 0; i < codes.size(); ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(decoded[i]),
                std::bit_cast<uint32_t>(E4M3ToFp32Ref(codes[i])))
          << i;
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(encoded[i], Fp32ToE4M3Ref(x[i])) << x[i];
  });
}

}  // namespace
}  // namespace tern::kernels
