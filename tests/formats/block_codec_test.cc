// Block types against golden bytes of gguf-py, and by round trips over sizes and values.
#include "formats/block_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/random.h"
#include "formats/half.h"
#include "golden.h"

namespace tern::formats {
namespace {

using testing::FloatsFromHex;
using testing::FromHex;
using testing::Golden;

GgmlType TypeByName(const std::string& name) {
  for (uint32_t number = 0; number < 64; ++number) {
    const auto info = FindGgmlType(number);
    if (info && info->name == name) return info->type;
  }
  throw BugError("no type " + name);
}

std::vector<int8_t> RandomCodes(int64_t count, uint64_t seed) {
  RandomStream random(seed, "codes");
  std::vector<int8_t> codes(static_cast<size_t>(count));
  for (int8_t& code : codes) code = static_cast<int8_t>(random.NextU64() % 3) - 1;
  return codes;
}

TEST(BlockCodecTest, EncodingEqualsGolden) {
  const auto all = Golden();
  size_t cases = 0;
  for (const auto& golden : all["blocks"]) {
    const GgmlType type = TypeByName(golden["type"]);
    const int64_t k = golden["k"];
    const auto x = FloatsFromHex(golden["input_f32"]);
    std::vector<uint8_t> bytes(static_cast<size_t>(RowBytes(type, k)));
    EncodeRow(type, x.data(), k, bytes.data());
    EXPECT_EQ(bytes, FromHex(golden["bytes"])) << golden["type"] << " case " << cases;
    ++cases;
  }
  EXPECT_EQ(cases, 14u);
}

// Bit patterns are compared, so that -0 and the exact products count.
TEST(BlockCodecTest, DecodingEqualsGolden) {
  const auto golden = Golden();
  std::set<std::string> types;
  for (const char* list : {"blocks", "foreign_blocks", "read_only_blocks"}) {
    for (const auto& block : golden[list]) {
      types.insert(block["type"]);
      const GgmlType type = TypeByName(block["type"]);
      const int64_t k = block["k"];
      const auto bytes = FromHex(block["bytes"]);
      const auto want = FloatsFromHex(block["decoded_f32"]);
      std::vector<float> found(static_cast<size_t>(k));
      DecodeRow(type, bytes.data(), k, found.data());
      ASSERT_EQ(want.size(), found.size());
      for (size_t i = 0; i < want.size(); ++i) {
        ASSERT_EQ(std::bit_cast<uint32_t>(found[i]), std::bit_cast<uint32_t>(want[i]))
            << block["type"] << " of " << list << ", element " << i << ": " << found[i];
      }
    }
  }
  EXPECT_EQ(types,
            (std::set<std::string>{"BF16", "F16", "Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0",
                                   "Q5_1", "Q5_K", "Q6_K", "Q8_0", "TQ1_0", "TQ2_0"}));
}

// Codes with d = 1 are what gguf-py makes of the codes as floats.
TEST(BlockCodecTest, TernaryCodesEqualGolden) {
  const auto all = Golden();
  int cases = 0;
  for (const auto& golden : all["blocks"]) {
    const GgmlType type = TypeByName(golden["type"]);
    const auto x = FloatsFromHex(golden["input_f32"]);
    const bool ternary = (type == GgmlType::kTq1_0 || type == GgmlType::kTq2_0) && x.size() == 512;
    if (!ternary) continue;
    std::vector<int8_t> codes(x.begin(), x.end());
    std::vector<uint8_t> bytes(static_cast<size_t>(RowBytes(type, 512)));
    EncodeTernaryRow(type, codes.data(), 512, bytes.data());
    EXPECT_EQ(bytes, FromHex(golden["bytes"])) << golden["type"];
    ++cases;
  }
  EXPECT_EQ(cases, 2);
}

class TernaryRowTest : public ::testing::TestWithParam<GgmlType> {};

TEST_P(TernaryRowTest, CodesComeBackAtEverySize) {
  for (const int64_t k : {0, 256, 512, 768, 256 * 33}) {
    const auto codes = RandomCodes(k, static_cast<uint64_t>(k));
    std::vector<uint8_t> row(static_cast<size_t>(RowBytes(GetParam(), k)));
    EncodeTernaryRow(GetParam(), codes.data(), k, row.data());
    std::vector<int8_t> found(codes.size());
    EXPECT_EQ(DecodeTernaryRow(GetParam(), row.data(), k, found.data()), 1.0f);
    EXPECT_EQ(found, codes);
    std::vector<float> values(codes.size());
    DecodeRow(GetParam(), row.data(), k, values.data());
    EXPECT_EQ(values, std::vector<float>(codes.begin(), codes.end()));
  }
}

// Every position takes every value without touching its neighbours.
TEST_P(TernaryRowTest, EachPositionIsIndependent) {
  std::vector<uint8_t> row(static_cast<size_t>(RowBytes(GetParam(), 256)));
  for (int8_t background = -1; background <= 1; ++background) {
    for (size_t at = 0; at < 256; ++at) {
      for (int8_t value = -1; value <= 1; ++value) {
        std::vector<int8_t> codes(256, background), found(256);
        codes[at] = value;
        EncodeTernaryRow(GetParam(), codes.data(), 256, row.data());
        DecodeTernaryRow(GetParam(), row.data(), 256, found.data());
        ASSERT_EQ(found, codes) << at;
      }
    }
  }
}

TEST_P(TernaryRowTest, DifferentScalesInARowAreRefused) {
  const auto codes = RandomCodes(512, 1);
  std::vector<uint8_t> row(static_cast<size_t>(RowBytes(GetParam(), 512)));
  EncodeTernaryRow(GetParam(), codes.data(), 512, row.data());
  row[row.size() - 1] = 0x40;  // d of the second block: 2 instead of 1
  row[row.size() - 2] = 0x00;
  std::vector<int8_t> found(512);
  EXPECT_THROW(DecodeTernaryRow(GetParam(), row.data(), 512, found.data()), FormatError);
}

TEST_P(TernaryRowTest, ForeignScaleIsReturned) {
  std::vector<float> x(256);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = 0.375f * static_cast<float>(static_cast<int>(i % 3) - 1);
  std::vector<uint8_t> row(static_cast<size_t>(RowBytes(GetParam(), 256)));
  EncodeRow(GetParam(), x.data(), 256, row.data());
  std::vector<int8_t> codes(256);
  EXPECT_EQ(DecodeTernaryRow(GetParam(), row.data(), 256, codes.data()), 0.375f);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(codes[i], static_cast<int>(i % 3) - 1);
}

TEST_P(TernaryRowTest, RowsMustBeWholeBlocks) {
  for (const int64_t k : {1, 128, 255, 257, 3200, 5460}) {
    EXPECT_THROW(RowBytes(GetParam(), k), FormatError) << k;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, TernaryRowTest,
                         ::testing::Values(GgmlType::kTq1_0, GgmlType::kTq2_0),
                         [](const auto& info) { return std::string(InfoOf(info.param).name); });

// Every code of a block, under scales of both signs and of none.
TEST(BlockCodecTest, CodesAndScalesComeBack) {
  for (const auto& [type, lowest, highest] :
       {std::tuple(GgmlType::kQ4_0, -8, 7), {GgmlType::kQ8_0, -128, 127}}) {
    const std::vector<float> d = {0.25f, -1.5f, 0.0f, 0x1p-24f, 65504.0f, 1.0f, 0.125f, 3.0f};
    const int64_t k = 32 * std::ssize(d);
    std::vector<int8_t> codes(static_cast<size_t>(k));
    for (size_t i = 0; i < codes.size(); ++i) {
      codes[i] = static_cast<int8_t>(lowest + static_cast<int>(i) % (highest - lowest + 1));
    }
    std::vector<uint8_t> row(static_cast<size_t>(RowBytes(type, k)));
    EncodeCodes(type, codes.data(), d.data(), k, row.data());
    std::vector<float> values(codes.size());
    DecodeRow(type, row.data(), k, values.data());
    for (size_t i = 0; i < codes.size(); ++i)
      ASSERT_EQ(values[i], d[i / 32] * static_cast<float>(codes[i])) << InfoOf(type).name << i;
  }
  const int8_t codes[32] = {};
  const float no_half = 0.1f;
  uint8_t block[34];
  EXPECT_THROW(EncodeCodes(GgmlType::kQ8_0, codes, &no_half, 32, block), BugError);
}

TEST(BlockCodecTest, PlanesOfTq2AreT2) {
  for (const int64_t k : {0, 256, 512, 256 * 33}) {
    const auto codes = RandomCodes(k, static_cast<uint64_t>(k));
    std::vector<uint8_t> row(static_cast<size_t>(RowBytes(GgmlType::kTq2_0, k)));
    EncodeTernaryRow(GgmlType::kTq2_0, codes.data(), k, row.data());
    std::vector<uint8_t> planes(static_cast<size_t>(k / 4), 0xFF);
    EXPECT_EQ(CopyTq2Planes(row.data(), k, planes.data()), 1.0f);
    for (size_t i = 0; i < codes.size(); ++i) {
      const size_t block = i / 128, byte = i % 32, plane = i % 128 / 32;
      ASSERT_EQ((planes[block * 32 + byte] >> 2 * plane & 3) - 1, codes[i]) << k << " " << i;
    }
  }
}

// Each of the four fields of each byte, with every neighbour.
TEST(BlockCodecTest, TheFourthCodeIsFoundInEveryPlane) {
  std::vector<uint8_t> row(66, 0), planes(64);
  row[65] = 0x3C;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool valid = (byte & byte >> 1 & 0x55) == 0;
    for (const size_t at : {0, 31, 32, 63}) {
      row[at] = static_cast<uint8_t>(byte);
      if (valid) {
        EXPECT_EQ(CopyTq2Planes(row.data(), 256, planes.data()), 1.0f);
      } else {
        EXPECT_THROW(CopyTq2Planes(row.data(), 256, planes.data()), FormatError) << byte;
      }
      row[at] = 0;
    }
  }
}

TEST(BlockCodecTest, TheFourthCodeOfTq2IsRefusedAsTernary) {
  std::vector<uint8_t> row(66, 0);
  row[65] = 0x3C;
  row[40] = 0xC0;  // Weight 128 + 8 + 96 has the bits 11
  std::vector<int8_t> codes(256);
  EXPECT_THROW(DecodeTernaryRow(GgmlType::kTq2_0, row.data(), 256, codes.data()), FormatError);
  // As floats it reads as ggml does: (3 - 1) d.
  std::vector<float> values(256);
  DecodeRow(GgmlType::kTq2_0, row.data(), 256, values.data());
  EXPECT_EQ(values[232], 2.0f);
  EXPECT_EQ(values[231], -1.0f);
}

// |decoded - x| <= amax (1/254 + 2^-11): half a step of d, and the rounding of d to fp16.
TEST(BlockCodecTest, Q8ErrorIsWithinItsBound) {
  RandomStream random(11, "q8");
  for (int round = 0; round < 200; ++round) {
    std::vector<float> x(64), found(64);
    const float size = std::ldexp(1.0f, round % 20 - 8);
    for (float& value : x) value = size * random.NextNormal();
    std::vector<uint8_t> row(static_cast<size_t>(RowBytes(GgmlType::kQ8_0, 64)));
    EncodeRow(GgmlType::kQ8_0, x.data(), 64, row.data());
    DecodeRow(GgmlType::kQ8_0, row.data(), 64, found.data());
    for (size_t b = 0; b < 64; b += 32) {
      double amax = 0;
      for (size_t i = b; i < b + 32; ++i) amax = std::max(amax, std::fabs(double{x[i]}));
      for (size_t i = b; i < b + 32; ++i) {
        ASSERT_LE(std::fabs(double{found[i]} - double{x[i]}), amax * (1 / 254.0 + 0x1p-11));
      }
    }
  }
}

TEST(BlockCodecTest, NumbersThatBlocksCannotHoldAreRefused) {
  std::vector<uint8_t> out(66);
  for (const GgmlType type : {GgmlType::kQ8_0, GgmlType::kTq1_0, GgmlType::kTq2_0}) {
    const int64_t k = InfoOf(type).block_weights;
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY, 3e38f}) {
      std::vector<float> x(static_cast<size_t>(k), 1.0f);
      x[5] = bad;
      EXPECT_THROW(EncodeRow(type, x.data(), k, out.data()), InputError) << InfoOf(type).name;
    }
    // So small that 1/d is no number: zeros, not undefined behaviour.
    std::vector<float> x(static_cast<size_t>(k), 1e-42f), found(static_cast<size_t>(k));
    EncodeRow(type, x.data(), k, out.data());
    DecodeRow(type, out.data(), k, found.data());
    EXPECT_EQ(found, std::vector<float>(static_cast<size_t>(k), 0.0f));
  }
}

TEST(BlockCodecTest, DenseTypesKeepTheirValues) {
  for (const int64_t k : {0, 1, 3, 127}) {
    std::vector<float> x(static_cast<size_t>(k)), found(static_cast<size_t>(k));
    RandomStream random(3, "dense");
    for (float& value : x) value = Bf16ToFp32(Fp32ToBf16(random.NextNormal()));
    std::vector<uint8_t> row(static_cast<size_t>(k) * 4);
    EncodeRow(GgmlType::kF32, x.data(), k, row.data());
    DecodeRow(GgmlType::kF32, row.data(), k, found.data());
    EXPECT_EQ(found, x);
    EncodeRow(GgmlType::kBf16, x.data(), k, row.data());
    DecodeRow(GgmlType::kBf16, row.data(), k, found.data());
    EXPECT_EQ(found, x);
    for (float& value : x) value = Fp16ToFp32(Fp32ToFp16(value));
    EncodeRow(GgmlType::kF16, x.data(), k, row.data());
    DecodeRow(GgmlType::kF16, row.data(), k, found.data());
    EXPECT_EQ(found, x);
  }
}

TEST(BlockCodecTest, TableAndRefusals) {
  EXPECT_EQ(RowBytes(GgmlType::kF32, 3), 12);
  EXPECT_EQ(RowBytes(GgmlType::kF16, 3), 6);
  EXPECT_EQ(RowBytes(GgmlType::kQ8_0, 64), 68);
  EXPECT_EQ(RowBytes(GgmlType::kTq1_0, 512), 108);
  EXPECT_EQ(RowBytes(GgmlType::kTq2_0, 512), 132);
  EXPECT_FALSE(FindGgmlType(4).has_value());   // Q4_2, removed
  EXPECT_FALSE(FindGgmlType(16).has_value());  // IQ2_XXS
  EXPECT_FALSE(FindGgmlType(4000).has_value());
  float value = 0;
  uint8_t byte[8] = {};
  EXPECT_THROW(EncodeRow(GgmlType::kI32, &value, 1, byte), FormatError);
  EXPECT_THROW(DecodeRow(GgmlType::kI64, byte, 1, &value), FormatError);
  EXPECT_EQ(RowBytes(GgmlType::kI2_S, 256), 64);
  EXPECT_EQ(TailBytes(GgmlType::kI2_S), 32);
  EXPECT_EQ(TailBytes(GgmlType::kTq2_0), 0);
  int8_t code = 0;
  EXPECT_THROW(DecodeRow(GgmlType::kI2_S, byte, 128, &value), FormatError);
  EXPECT_THROW(EncodeTernaryRow(GgmlType::kI2_S, &code, 128, byte), BugError);
  EXPECT_THROW(EncodeTernaryRow(GgmlType::kF32, &code, 1, byte), BugError);
}

}  // namespace
}  // namespace tern::formats
