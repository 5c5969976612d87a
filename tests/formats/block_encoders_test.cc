// The block types that are written from floats, byte for byte against ggml's own quantizers
// (golden/generate_ggml.py), and what every encoder must hold.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "formats/block_codec.h"
#include "tests/formats/golden.h"

namespace tern::formats {
namespace {

constexpr GgmlType kTypes[] = {GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0,
                               GgmlType::kQ5_1, GgmlType::kQ2_K, GgmlType::kQ3_K,
                               GgmlType::kQ4_K, GgmlType::kQ5_K, GgmlType::kQ6_K};

TEST(BlockEncodersTest, BytesOfGgml) {
  const auto golden =
      nlohmann::json::parse(ReadFile(TERN_SOURCE_DIR "/tests/formats/golden/ggml_blocks.json"));
  const auto importance = testing::FloatsFromHex(golden["importance_f32"]);
  int compared = 0;
  for (const auto& block : golden["blocks"]) {
    const auto x = testing::FloatsFromHex(golden["inputs_f32"][block["input"].get<size_t>()]);
    const auto want = testing::FromHex(block["bytes"]);
    for (const GgmlType type : kTypes) {
      if (InfoOf(type).name != block["type"].get<std::string>()) continue;
      std::vector<uint8_t> found(want.size(), 0xEE);
      EncodeRow(type, x.data(), static_cast<int64_t>(x.size()), found.data(),
                block["weighted"].get<bool>() ? importance.data() : nullptr);
      EXPECT_EQ(found, want) << block["type"] << ", input " << block["input"] << ", weighted "
                             << block["weighted"];
      ++compared;
    }
  }
  EXPECT_EQ(compared, 9 * 4 * 2);
}

// Root mean square error over the root mean square of normal weights: at most that of the Lloyd-Max
// quantizer of one bit less (Max 1960: 0.603, 0.343, 0.186, 0.0973, 0.0499, 0.0252 for 1 to 6
// bits), which the scale of a block of 16 or 32 does not come near to unless something is broken.
TEST(BlockEncodersTest, ErrorsAreOfTheirBits) {
  RandomStream random(1, "weights");
  std::vector<float> x(4096), back(x.size());
  for (float& value : x) value = 0.02f * random.NextNormal();
  const double most[] = {0.186, 0.186, 0.0973, 0.0973, 0.603, 0.343, 0.186, 0.0973, 0.0499};
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    const auto k = static_cast<int64_t>(x.size());
    std::vector<uint8_t> row(static_cast<size_t>(RowBytes(kTypes[i], k)));
    EncodeRow(kTypes[i], x.data(), k, row.data());
    DecodeRow(kTypes[i], row.data(), k, back.data());
    double lost = 0, power = 0;
    for (size_t j = 0; j < x.size(); ++j) {
      lost += std::pow(double{x[j]} - back[j], 2);
      power += std::pow(double{x[j]}, 2);
    }
    EXPECT_LT(std::sqrt(lost / power), most[i]) << InfoOf(kTypes[i]).name;
    EXPECT_GT(lost, 0);
  }
}

TEST(BlockEncodersTest, WhatIsNotFiniteIsRefused) {
  for (const GgmlType type : kTypes) {
    std::vector<uint8_t> row(static_cast<size_t>(RowBytes(type, 256)));
    for (const float bad : {NAN, INFINITY, -INFINITY, 3e38f}) {
      std::vector<float> x(256, 0.5f);
      x[200] = bad;
      EXPECT_THROW(EncodeRow(type, x.data(), 256, row.data()), InputError)
          << InfoOf(type).name << ", " << bad;
    }
  }
}

}  // namespace
}  // namespace tern::formats
