// Whole-matrix ternary packings: Hugging Face's bitnet (rows in stripes) and I2_S (blocks of 128).
// Golden values are worked out by hand from the layouts in docs/formats.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/random.h"
#include "formats/hf_bitnet.h"
#include "formats/i2_s.h"

namespace tern::formats {
namespace {

std::vector<int8_t> RandomCodes(int64_t count, uint64_t seed) {
  RandomStream random(seed, "packing");
  std::vector<int8_t> codes(static_cast<size_t>(count));
  for (int8_t& code : codes) code = static_cast<int8_t>(random.NextU64() % 3) - 1;
  return codes;
}

// [8, 2]: byte row r holds rows r, r + 2, r + 4, r + 6 at bits 0, 2, 4, 6, as code + 1.
TEST(HfBitnetTest, RowsLieInStripes) {
  const std::vector<int8_t> codes = {-1, 0,   // Row 0
                                     1,  -1,  // Row 1
                                     0,  1,   // Row 2
                                     -1, 0,   // Row 3
                                     1,  1,   // Row 4
                                     0,  -1,  // Row 5
                                     -1, 0,   // Row 6
                                     1,  1};  // Row 7
  const std::vector<uint8_t> want = {
      0 | 1 << 2 | 2 << 4 | 0 << 6, 1 | 2 << 2 | 2 << 4 | 1 << 6,   // Rows 0, 2, 4, 6
      2 | 0 << 2 | 1 << 4 | 2 << 6, 0 | 1 << 2 | 0 << 4 | 2 << 6};  // Rows 1, 3, 5, 7
  EXPECT_EQ(PackHfBitnet(codes, 8, 2), want);
  EXPECT_EQ(UnpackHfBitnet(want.data(), 8, 2), codes);
}

TEST(HfBitnetTest, RoundTripsOverSizes) {
  for (const int64_t n : {0, 4, 8, 12, 100}) {
    for (const int64_t k : {0, 1, 3, 64, 129}) {
      const auto codes = RandomCodes(n * k, static_cast<uint64_t>(n * 1000 + k));
      const auto packed = PackHfBitnet(codes, n, k);
      EXPECT_EQ(static_cast<int64_t>(packed.size()), n / 4 * k);
      EXPECT_EQ(UnpackHfBitnet(packed.data(), n, k), codes);
    }
  }
}

TEST(HfBitnetTest, RefusesWhatIsNone) {
  for (const int64_t n : {1, 2, 3, 5, 130}) {
    EXPECT_THROW(PackHfBitnet(std::vector<int8_t>(static_cast<size_t>(n)), n, 1), FormatError);
  }
  EXPECT_THROW(PackHfBitnet(std::vector<int8_t>(7), 4, 2), BugError);
  const uint8_t bytes[] = {0x55, 0x5D};  // The second has 11 at bits 2-3
  EXPECT_NO_THROW(UnpackHfBitnet(bytes, 4, 1));
  EXPECT_THROW(UnpackHfBitnet(bytes, 4, 2), FormatError);
}

// Byte p of a block holds weights p, p + 32, p + 64, p + 96 from the highest bits down.
TEST(I2sTest, FieldsLieFromTheHighestBitsDown) {
  std::vector<int8_t> codes(256, -1);
  codes[128 + 5] = 1;       // Field 0 of byte 32 + 5
  codes[128 + 5 + 32] = 0;  // Field 1
  codes[128 + 5 + 96] = 1;  // Field 3
  codes[31 + 64] = 0;       // Field 2 of byte 31
  const auto bytes = PackI2s(codes, 2, 128, 0.75f);
  ASSERT_EQ(bytes.size(), 64u + 32u);
  for (size_t i = 0; i < 64; ++i) {
    const int want = i == 37 ? 2 << 6 | 1 << 4 | 0 << 2 | 2 : i == 31 ? 1 << 2 : 0;
    EXPECT_EQ(bytes[i], want) << i;
  }
  float scale = 0;
  std::memcpy(&scale, bytes.data() + 64, sizeof scale);
  EXPECT_EQ(scale, 0.75f);
  for (size_t i = 68; i < 96; ++i) EXPECT_EQ(bytes[i], 0);
}

TEST(I2sTest, RoundTripsOverSizes) {
  for (const int64_t n : {0, 1, 3, 7}) {
    for (const int64_t k : {0, 128, 256, 1280}) {
      const auto codes = RandomCodes(n * k, static_cast<uint64_t>(n + k));
      const auto bytes = PackI2s(codes, n, k, 0.1f);
      EXPECT_EQ(static_cast<int64_t>(bytes.size()), I2sBytes(n, k));
      const I2sMatrix found = UnpackI2s(bytes, n, k);
      EXPECT_EQ(found.codes, codes);
      EXPECT_EQ(found.scale, 0.1f);
    }
  }
}

TEST(I2sTest, RefusesWhatIsNone) {
  EXPECT_THROW(I2sBytes(1, 64), FormatError);
  EXPECT_THROW(PackI2s(std::vector<int8_t>(200), 1, 200, 1.0f), FormatError);
  const auto codes = RandomCodes(256, 1);
  EXPECT_THROW(PackI2s(codes, 1, 128, 1.0f), BugError);
  auto bytes = PackI2s(codes, 2, 128, 1.0f);
  EXPECT_THROW(UnpackI2s(std::span(bytes).first(95), 2, 128), FormatError);
  EXPECT_THROW(UnpackI2s(bytes, 1, 128), FormatError);
  bytes[3] |= 0x0C;
  EXPECT_THROW(UnpackI2s(bytes, 2, 128), FormatError);
  for (const float scale : {0.0f, -1.0f, std::nanf(""), INFINITY}) {
    EXPECT_THROW(UnpackI2s(PackI2s(codes, 2, 128, scale), 2, 128), FormatError) << scale;
  }
}

}  // namespace
}  // namespace tern::formats
