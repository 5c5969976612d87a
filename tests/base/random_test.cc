// Philox against Random123's known answers; streams as pure functions of (seed, name, index);
// permutations without a table as bijections, over all small sizes and sampled on huge ones.
#include "base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "base/error.h"

namespace tern {
namespace {

using Block = std::array<uint32_t, 4>;

// Random123 1.09, tests/kat_vectors, lines "philox4x32 10".
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStreamTest, ValuesDependOnSeedNameAndIndexOnly) {
  RandomStream stream(42, "init");
  std::vector<uint64_t> first;
  for (int i = 0; i < 100; ++i) first.push_back(stream.NextU64());
  EXPECT_EQ(stream.counter(), 100u);
  const RandomStream again(42, "init");
  for (uint64_t i = 100; i-- > 0;) EXPECT_EQ(again.At(i), first[i]);  // In any order.
  RandomStream resumed(42, "init", 60);
  EXPECT_EQ(resumed.NextU64(), first[60]);
  resumed.set_counter(3);
  EXPECT_EQ(resumed.NextU64(), first[3]);
}

TEST(RandomStreamTest, OtherSeedsAndNamesGiveOtherStreams) {
  std::set<uint64_t> values;
  for (const uint64_t seed : {0ull, 1ull, 42ull, 1ull << 32, ~0ull}) {
    for (const char* name : {"", "data", "init", "initX"})
      values.insert(RandomStream(seed, name).At(0));
  }
  EXPECT_EQ(values.size(), 20u);
}

// n values of a uniform have mean 1/2 with standard error sqrt(1/12/n); the seed is fixed, so 5
// standard errors suffice to tell a broken stream. The square of a standard normal has mean 1 and
// variance 2.
TEST(RandomStreamTest, MomentsOfUniformAndNormal) {
  constexpr int kCount = 100'000;
  RandomStream stream(7, "moments");
  double uniform = 0, normal = 0, square = 0;
  for (int i = 0; i < kCount; ++i) {
    const float u = stream.NextUniform();
    ASSERT_TRUE(u >= 0.0f && u < 1.0f) << u;
    uniform += u;
    const double z = stream.NextNormal();
    ASSERT_TRUE(std::isfinite(z));
    normal += z;
    square += z * z;
  }
  EXPECT_EQ(stream.counter(), 2u * kCount);
  EXPECT_NEAR(uniform / kCount, 0.5, 5 * std::sqrt(1.0 / 12 / kCount));
  EXPECT_NEAR(normal / kCount, 0.0, 5 * std::sqrt(1.0 / kCount));
  EXPECT_NEAR(square / kCount, 1.0, 5 * std::sqrt(2.0 / kCount));
}

TEST(PermuteIndexTest, IsABijectionForEverySizeTo300) {
  for (uint64_t size = 1; size <= 300; ++size) {
    for (const uint64_t key : {0ull, 1ull, 0x9e3779b97f4a7c15ull}) {
      std::vector<bool> hit(size, false);
      for (uint64_t i = 0; i < size; ++i) {
        const uint64_t to = PermuteIndex(i, size, key);
        ASSERT_LT(to, size) << "size " << size << ", key " << key << ", index " << i;
        ASSERT_FALSE(hit[to]) << "size " << size << ", key " << key << ", index " << i;
        hit[to] = true;
      }
    }
  }
}

TEST(PermuteIndexTest, BigSizesStayInRangeWithoutCollision) {
  for (const uint64_t size :
       {(1ull << 32) - 1, 1ull << 32, (1ull << 32) + 1, 1'000'000'007ull, (1ull << 62) + 3}) {
    std::set<uint64_t> seen;
    constexpr uint64_t kSamples = 2000;
    for (uint64_t k = 0; k < kSamples; ++k) {
      const uint64_t i = k < kSamples / 2 ? k : size - 1 - (k - kSamples / 2);
      const uint64_t to = PermuteIndex(i, size, 11);
      ASSERT_LT(to, size);
      ASSERT_TRUE(seen.insert(to).second) << "size " << size << ", index " << i;
    }
  }
}

TEST(PermuteIndexTest, KeysGiveDifferentOrdersThatMix) {
  constexpr uint64_t kSize = 1000;
  uint64_t same_key = 0, fixed_points = 0, neighbours = 0;
  for (uint64_t i = 0; i < kSize; ++i) {
    const uint64_t to = PermuteIndex(i, kSize, 1);
    same_key += to == PermuteIndex(i, kSize, 2);
    fixed_points += to == i;
    if (i > 0) neighbours += PermuteIndex(i - 1, kSize, 1) + 1 == to;
  }
  // Each is about Poisson(1) for random permutations: 12 or more happen once in 10^9.
  EXPECT_LT(same_key, 12u);
  EXPECT_LT(fixed_points, 12u);
  EXPECT_LT(neighbours, 12u);
}

TEST(PermuteIndexTest, IndexOutOfRangeIsABug) { EXPECT_THROW(PermuteIndex(5, 5, 0), BugError); }

}  // namespace
}  // namespace tern
