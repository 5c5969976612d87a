// Reading of the block types of 2 to 6 bits (k_blocks.h, legacy_blocks.h): sizes, single weights
// placed by hand, refusals, and any bytes. Equality with gguf-py is in block_codec_test.cc, writing
// in block_encoders_test.cc.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "formats/block_codec.h"
#include "formats/half.h"

namespace tern::formats {
namespace {

// Sizes of ggml-common.h and the places of the blocks' fp16 numbers.
struct Layout {
  GgmlType type;
  uint32_t number;
  const char* name;
  int64_t weights, bytes;
  std::vector<size_t> scales;
};
const Layout kLayouts[] = {
    {GgmlType::kQ4_0, 2, "Q4_0", 32, 18, {0}},
    {GgmlType::kQ4_1, 3, "Q4_1", 32, 20, {0, 2}},
    {GgmlType::kQ5_0, 6, "Q5_0", 32, 22, {0}},
    {GgmlType::kQ5_1, 7, "Q5_1", 32, 24, {0, 2}},
    {GgmlType::kQ8_0, 8, "Q8_0", 32, 34, {0}},
    {GgmlType::kQ2_K, 10, "Q2_K", 256, 84, {80, 82}},
    {GgmlType::kQ3_K, 11, "Q3_K", 256, 110, {108}},
    {GgmlType::kQ4_K, 12, "Q4_K", 256, 144, {0, 2}},
    {GgmlType::kQ5_K, 13, "Q5_K", 256, 176, {0, 2}},
    {GgmlType::kQ6_K, 14, "Q6_K", 256, 210, {208}},
    {GgmlType::kTq1_0, 34, "TQ1_0", 256, 54, {52}},
    {GgmlType::kTq2_0, 35, "TQ2_0", 256, 66, {64}},
    {GgmlType::kF16, 1, "F16", 1, 2, {0}},
};

std::vector<uint8_t> RandomBytes(int64_t count, RandomStream& random) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.NextU64() >> 32);
  return bytes;
}

void PutHalf(std::vector<uint8_t>& block, size_t at, uint32_t bits) {
  block[at] = static_cast<uint8_t>(bits);
  block[at + 1] = static_cast<uint8_t>(bits >> 8);
}

std::vector<float> Decoded(GgmlType type, const std::vector<uint8_t>& row, int64_t k) {
  std::vector<float> values(static_cast<size_t>(k));
  DecodeRow(type, row.data(), k, values.data());
  return values;
}

bool AllFinite(const std::vector<float>& values) {
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

TEST(ReadOnlyBlocksTest, SizesAreThoseOfGgml) {
  for (const Layout& layout : kLayouts) {
    SCOPED_TRACE(layout.name);
    const auto info = FindGgmlType(layout.number);
    ASSERT_TRUE(info.has_value());
    EXPECT_EQ(info->type, layout.type);
    EXPECT_EQ(info->name, layout.name);
    for (const int64_t blocks : {0, 1, 2, 7}) {
      EXPECT_EQ(RowBytes(layout.type, blocks * layout.weights), blocks * layout.bytes);
    }
    if (layout.weights == 1) continue;
    for (const int64_t k : {int64_t{1}, layout.weights - 1, layout.weights + 1}) {
      EXPECT_THROW(RowBytes(layout.type, k), FormatError) << k;
    }
  }
}

TEST(ReadOnlyBlocksTest, WritingIsRefusedAndNamesTheType) {
  for (const GgmlType type : {GgmlType::kI8, GgmlType::kI32, GgmlType::kF64, GgmlType::kI2_S}) {
    const std::vector<float> x(128, 1.0f);
    std::vector<uint8_t> out(1024);
    try {
      EncodeRow(type, x.data(), 128, out.data());
      ADD_FAILURE() << InfoOf(type).name << " was written";
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find(InfoOf(type).name), std::string::npos)
          << error.what();
    }
  }
}

TEST(ReadOnlyBlocksTest, MessagesListEveryTypeOfWeights) {
  EXPECT_EQ(WeightTypeNames(),
            "F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, BF16, TQ1_0, "
            "TQ2_0, I2_S");
}

// Numbers that a reader of the docs can follow: weight 17 of a block of 32 is the high half of
// byte 1, its fifth bit is bit 17 of four bytes.
TEST(ReadOnlyBlocksTest, OneWeightOf32ByHand) {
  std::vector<uint8_t> q5_1(24);
  PutHalf(q5_1, 0, Fp32ToFp16(0.5f));
  PutHalf(q5_1, 2, Fp32ToFp16(-3.0f));
  q5_1[4 + 2] = 1 << 1;
  q5_1[8 + 1] = 9 << 4;
  std::vector<float> want(32, -3.0f);
  want[17] = 0.5f * (16 + 9) - 3.0f;
  EXPECT_EQ(Decoded(GgmlType::kQ5_1, q5_1, 32), want);

  std::vector<uint8_t> q4_0(18, 0x88);  // All codes 8: zero
  PutHalf(q4_0, 0, Fp32ToFp16(0.5f));
  q4_0[2 + 1] = 0x18;
  std::vector<float> four(32, 0.0f);
  four[17] = 0.5f * (1 - 8);
  EXPECT_EQ(Decoded(GgmlType::kQ4_0, q4_0, 32), four);
}

// Weight 229 of Q4_K: sub-block 7, high half of byte 3 * 32 + 5; the scale 0x2B has its low four
// bits in byte 11 and its high two in byte 3 of the twelve, the minimum 0x16 in 11 and 7.
TEST(ReadOnlyBlocksTest, OneWeightOf256ByHand) {
  std::vector<uint8_t> q4_k(144);
  PutHalf(q4_k, 0, Fp32ToFp16(0.25f));
  PutHalf(q4_k, 2, Fp32ToFp16(2.0f));
  q4_k[4 + 11] = 0xB | 0x6 << 4;
  q4_k[4 + 3] = 0x2 << 6;
  q4_k[4 + 7] = 0x1 << 6;
  q4_k[16 + 3 * 32 + 5] = 13 << 4;
  std::vector<float> want(256, 0.0f);
  for (size_t i = 224; i < 256; ++i) want[i] = -2.0f * 0x16;
  want[229] = 0.25f * 0x2B * 13 - 2.0f * 0x16;
  EXPECT_EQ(Decoded(GgmlType::kQ4_K, q4_k, 256), want);
}

// Rows are blocks one after the other, whatever stands beside them, at any address.
TEST(ReadOnlyBlocksTest, BlocksOfARowAreIndependent) {
  RandomStream random(41, "blocks");
  for (const Layout& layout : kLayouts) {
    const int64_t blocks = 5;
    std::vector<uint8_t> row = RandomBytes(blocks * layout.bytes + 1, random);
    for (int64_t b = 0; b < blocks; ++b) {
      for (const size_t at : layout.scales)
        PutHalf(row, 1 + static_cast<size_t>(b * layout.bytes) + at,
                0x2000u + 77u * static_cast<uint32_t>(b));
    }
    std::vector<float> whole(static_cast<size_t>(blocks * layout.weights)), parts = whole;
    DecodeRow(layout.type, row.data() + 1, blocks * layout.weights, whole.data());
    for (int64_t b = 0; b < blocks; ++b) {
      const auto begin = row.begin() + 1 + b * layout.bytes;
      const std::vector<uint8_t> block(begin, begin + layout.bytes);
      DecodeRow(layout.type, block.data(), layout.weights, parts.data() + b * layout.weights);
    }
    EXPECT_EQ(whole, parts) << layout.name;
  }
}

// Every fp16 pattern in every scale: the weights are finite exactly when FindNonFinite says so, and
// the block that is not is the one it names.
TEST(ReadOnlyBlocksFuzz, ScalesThatAreNoNumbersAreFound) {
  RandomStream random(42, "scales");
  for (const Layout& layout : kLayouts) {
    const int64_t k = 3 * layout.weights;
    for (const size_t scale : layout.scales) {
      std::vector<uint8_t> row = RandomBytes(3 * layout.bytes, random);
      for (size_t b = 0; b < 3; ++b) {
        for (const size_t at : layout.scales)
          PutHalf(row, b * static_cast<size_t>(layout.bytes) + at, 0xFBFF);  // -65504
      }
      for (uint32_t bits = 0; bits < 65536; bits += layout.weights == 256 ? 31 : 7) {
        PutHalf(row, static_cast<size_t>(layout.bytes) + scale, bits);
        const bool finite = AllFinite(Decoded(layout.type, row, k));
        ASSERT_EQ(finite, (bits & 0x7C00u) != 0x7C00u) << layout.name << " " << bits;
        ASSERT_EQ(FindNonFinite(layout.type, row.data(), k), finite ? k : layout.weights)
            << layout.name << " " << bits;
      }
    }
  }
}

// Any bytes decode; a sanitizer would see a read or write beyond the row.
TEST(ReadOnlyBlocksFuzz, AnyBytesAreARow) {
  RandomStream random(43, "any bytes");
  int64_t finite = 0, other = 0;
  for (const Layout& layout : kLayouts) {
    for (int round = 0; round < 400; ++round) {
      const int64_t blocks = round % 4;
      const std::vector<uint8_t> row = RandomBytes(blocks * layout.bytes, random);
      const std::vector<float> values = Decoded(layout.type, row, blocks * layout.weights);
      const int64_t at = FindNonFinite(layout.type, row.data(), blocks * layout.weights);
      ASSERT_EQ(AllFinite(values), at == blocks * layout.weights) << layout.name;
      ++(AllFinite(values) ? finite : other);
    }
  }
  EXPECT_GT(finite, 1000);
  EXPECT_GT(other, 100);
}

TEST(ReadOnlyBlocksTest, NonFiniteFloatsAreFound) {
  std::vector<float> x = {1, 3.4e38f, -1e-42f, INFINITY, NAN};
  const auto* bytes = reinterpret_cast<const uint8_t*>(x.data());
  EXPECT_EQ(FindNonFinite(GgmlType::kF32, bytes, 5), 3);
  EXPECT_EQ(FindNonFinite(GgmlType::kF32, bytes, 3), 3);
  EXPECT_EQ(FindNonFinite(GgmlType::kF32, bytes + 16, 1), 0);
  const uint16_t halves[] = {0x7F7F, 0xFF7F, 0x0001, 0xFF80};  // BF16: the largest, then -Inf
  const auto* half_bytes = reinterpret_cast<const uint8_t*>(halves);
  EXPECT_EQ(FindNonFinite(GgmlType::kBf16, half_bytes, 4), 3);
  EXPECT_EQ(FindNonFinite(GgmlType::kBf16, half_bytes, 3), 3);
  EXPECT_THROW(FindNonFinite(GgmlType::kI8, half_bytes, 3), FormatError);
}

}  // namespace
}  // namespace tern::formats
