// The highest logits in the emulator against a plain sort: ties, all sizes, numbers that are none.
#include "kernels/top_k/top_k.cu"  // The launcher's host code is the emulator's, too.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

std::vector<TokenLogit> Sorted(const std::vector<float>& logits, int64_t k) {
  std::vector<TokenLogit> all;
  for (const float logit : logits) all.push_back({static_cast<int32_t>(all.size()), logit});
  std::stable_sort(all.begin(), all.end(),
                   [](const TokenLogit& a, const TokenLogit& b) { return a.logit > b.logit; });
  all.resize(static_cast<size_t>(k));
  return all;
}

std::vector<TokenLogit> TopK(const std::vector<float>& logits, int64_t k, bool shuffle = false) {
  const DeviceBuffer<float> row(logits);
  DeviceBuffer<TokenLogit> best(k, {-7, 0.0f});
  const auto n = static_cast<int64_t>(logits.size());
  simt::EmulatorOptions() = {.shuffle = shuffle, .seed = 5};
  EXPECT_EQ(LaunchTopK({row.data(), best.data(), 1, n, n, k}, nullptr), nullptr);
  simt::EmulatorOptions() = {};
  return best.ToVector();
}

void ExpectSorted(const std::vector<float>& logits, int64_t k) {
  SCOPED_TRACE(testing::Message() << logits.size() << " logits, k " << k);
  const auto want = Sorted(logits, k);
  EXPECT_EQ(TopK(logits, k), want);
  EXPECT_EQ(TopK(logits, k, /*shuffle=*/true), want);
}

TEST(TopKCudaTest, IsTheBeginOfTheSortedRow) {
  for (int64_t n : {1, 2, 255, 1024, 1025, 5000}) {
    const auto logits = RandomFloats(n, static_cast<uint32_t>(n), 8.0f);
    for (int64_t k : {1, 2, 40, 255, 256})
      if (k <= n) ExpectSorted(logits, k);
  }
}

TEST(TopKCudaTest, EqualsInTheOrderOfTheirIds) {
  std::mt19937 random(3);
  std::vector<float> few;  // Five different values, zeros of both signs
  for (int i = 0; i < 3000; ++i) few.push_back(static_cast<float>(random() % 5) - 2.0f);
  for (size_t i = 0; i < few.size(); i += 3) few[i] = few[i] == 0.0f ? -0.0f : few[i];
  for (int64_t k : {1, 40, 256}) ExpectSorted(few, k);
  ExpectSorted(std::vector<float>(2000, 0.25f), 256);
  std::vector<float> lows(2000, -INFINITY);
  lows[1999] = -3e38f;
  ExpectSorted(lows, 3);
}

// Keys that differ in the last bytes only: all passes are needed.
TEST(TopKCudaTest, NeighbouringFloats) {
  std::vector<float> logits;
  float value = 1.0f;
  for (int i = 0; i < 1500; ++i) logits.push_back(value = std::nextafterf(value, 2.0f));
  std::shuffle(logits.begin(), logits.end(), std::mt19937(4));
  ExpectSorted(logits, 100);
  for (float& logit : logits) logit = -logit;
  ExpectSorted(logits, 100);
}

TEST(TopKCudaTest, SaysWhenThereIsNoChoice) {
  for (int64_t k : {1, 2}) EXPECT_EQ(TopK(std::vector<float>(300, -INFINITY), k)[0].id, -1);
  for (float bad : {std::nanf(""), -std::nanf(""), HUGE_VALF}) {
    for (size_t at : {0, 40, 1299}) {
      auto logits = RandomFloats(1300, 1);
      logits[at] = bad;
      for (int64_t k : {1, 40}) EXPECT_EQ(TopK(logits, k)[0].id, -1) << bad << " at " << at;
    }
  }
}

TEST(TopKCudaTest, RowsLieApart) {
  const int64_t m = 3, n = 700, ld = 800;
  const auto values = RandomFloats(m * ld, 9);
  const DeviceBuffer<float> logits(values);
  for (int64_t k : {1, 5}) {
    DeviceBuffer<TokenLogit> best(m * k, {-7, 0.0f});
    ASSERT_EQ(LaunchTopK({logits.data(), best.data(), m, n, ld, k}, nullptr), nullptr);
    for (int64_t row = 0; row < m; ++row) {
      const auto begin = values.begin() + row * ld;
      const auto want = Sorted({begin, begin + n}, k);
      EXPECT_TRUE(std::equal(want.begin(), want.end(), best.data() + row * k));
    }
  }
}

TEST(TopKCudaTest, RefusesOtherSizes) {
  for (int64_t k : {0, 4, 257})
    EXPECT_STREQ(LaunchTopK({nullptr, nullptr, 1, k == 257 ? 1000 : 3, 3, k}, nullptr),
                 "top-k: k must be 1 to 256, and not above the number of logits");
}

}  // namespace
}  // namespace tern::kernels
