// The T2 layout: bytes by hand, round trips on every instruction set, padding, exact
// dequantization.
#include "kernels/ternary_pack/t2.h"

#include <gtest/gtest.h>

#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

const int64_t kWidths[] = {0,   1,   15,  16,  17,  31,  32,  33,  63,   96,
                           127, 128, 129, 200, 255, 256, 257, 384, 1000, 2561};

TEST(T2Test, PlacesByHand) {
  std::vector<int8_t> weights(160, -1);
  weights[5] = 1;        // Block 0, byte 5, bits 0-1.
  weights[32 + 5] = 0;   // Bits 2-3.
  weights[96 + 31] = 1;  // Byte 31, bits 6-7.
  weights[128 + 1] = 1;  // Block 1, byte 1, bits 0-1; k >= 160 is padding, code 1.
  std::vector<uint8_t> expected(64, 0);
  expected[5] = 2 | 1 << 2;
  expected[31] = 2 << 6;
  for (int i = 32; i < 64; ++i) expected[static_cast<size_t>(i)] = 1 << 2 | 1 << 4 | 1 << 6;
  expected[33] |= 2;
  ForEachIsa([&](Isa isa) {
    std::vector<uint8_t> packed(64, 0xFF);
    PackT2Row(weights.data(), 160, packed.data());
    EXPECT_EQ(packed, expected) << ToString(isa);
  });
}

TEST(T2Test, PackAndUnpackEqualTheOracle) {
  for (int64_t k : kWidths) {
    const std::vector<int8_t> weights = RandomTernary(k, static_cast<uint32_t>(k));
    const std::vector<uint8_t> expected = PackMatrix(weights, 1, k);
    ForEachIsa([&](Isa isa) {
      std::vector<uint8_t> packed(static_cast<size_t>(T2RowBytes(k)) + 1, 0xEE);
      PackT2Row(weights.data(), k, packed.data());
      EXPECT_EQ(packed.back(), 0xEE) << "wrote past the row";
      packed.pop_back();
      EXPECT_EQ(packed, expected) << ToString(isa) << " k " << k;
      std::vector<int8_t> unpacked(static_cast<size_t>(k) + 1, 99);
      UnpackT2Row(packed.data(), k, unpacked.data());
      EXPECT_EQ(unpacked.back(), 99) << "wrote past the row";
      unpacked.pop_back();
      EXPECT_EQ(unpacked, weights) << ToString(isa) << " k " << k;
    });
  }
}

TEST(T2Test, DequantizeIsExact) {
  for (int64_t k : kWidths) {
    const int64_t n = 5, ldo = k + 3;
    const float scale = 0.0371f;
    const std::vector<int8_t> weights = RandomTernary(n * k, 3);
    const std::vector<uint8_t> packed = PackMatrix(weights, n, k);
    ForEachIsa([&](Isa isa) {
      std::vector<float> out(static_cast<size_t>(n * ldo), 77.0f);
      DequantizeT2(packed.data(), 1, 4, k, scale, out.data(), ldo);
      for (int64_t row = 0; row < n; ++row) {
        for (int64_t i = 0; i < ldo; ++i) {
          const bool written = row >= 1 && row < 4 && i < k;
          const float expected =
              written ? scale * static_cast<float>(weights[static_cast<size_t>(row * k + i)])
                      : 77.0f;
          ASSERT_EQ(out[static_cast<size_t>(row * ldo + i)], expected)
              << ToString(isa) << " k " << k << " i " << i;
        }
      }
    });
  }
}

}  // namespace
}  // namespace tern::kernels
