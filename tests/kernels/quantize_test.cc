// The two quantizers of BitLinear against their scalar oracles, for exact equality on every
// instruction set, and the oracles against values worked out by hand.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/absmax_quantize/absmax_quantize_impl.h"
#include "kernels/ternary_quantize/ternary_quantize.h"
#include "kernels/ternary_quantize/ternary_quantize_impl.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

TEST(AbsmaxQuantizeTest, RoundsHalfToEvenByHand) {
  // gamma = 127, so s = 1 and the values are their own quotients.
  const std::vector<float> x = {127.0f, 0.5f,  1.5f,    2.5f,  -0.5f,
                                -1.5f,  -2.5f, -127.0f, 0.49f, 63.51f};
  const std::vector<int8_t> expected = {127, 0, 2, 2, 0, -2, -2, -127, 0, 64};
  ForEachIsa([&](Isa isa) {
    std::vector<int8_t> q(128, 55);
    float gamma = 0;
    int32_t sum = 0;
    AbsmaxQuantize(x.data(), 0, 1, 10, 10, q.data(), 128, &gamma, &sum);
    EXPECT_EQ(gamma, 127.0f);
    EXPECT_EQ(sum, 64);
    for (size_t i = 0; i < 128; ++i)
      EXPECT_EQ(q[i], i < 10 ? expected[i] : 0) << ToString(isa) << " " << i;
  });
}

TEST(AbsmaxQuantizeTest, ZeroTokenHasTheFloor) {
  const std::vector<float> x(40, 0.0f);
  ForEachIsa([&](Isa) {
    std::vector<int8_t> q(128, 55);
    float gamma = 0;
    int32_t sum = 9;
    AbsmaxQuantize(x.data(), 0, 1, 40, 40, q.data(), 128, &gamma, &sum);
    EXPECT_EQ(gamma, kActivationFloor);
    EXPECT_EQ(sum, 0);
    EXPECT_EQ(q, std::vector<int8_t>(128, 0));
  });
}

TEST(AbsmaxQuantizeTest, EqualsTheOracle) {
  for (int64_t k : {0, 1, 7, 8, 15, 16, 17, 31, 33, 100, 127, 128, 129, 768, 1001}) {
    const int64_t m = 7, ldx = k + 5, ldq = T2PaddedK(k) + 3;
    for (float scale : {1e-7f, 1.0f, 3e4f}) {
      const std::vector<float> x = RandomFloats(m * ldx, static_cast<uint32_t>(k), scale);
      std::vector<int8_t> q_ref(static_cast<size_t>(m * ldq), 55);
      std::vector<float> gamma_ref(m), out_ref(static_cast<size_t>(m * k));
      std::vector<int32_t> sum_ref(m);
      for (int64_t r = 0; r < m; ++r) {
        AbsmaxQuantizeRowRef(x.data() + r * ldx, k, T2PaddedK(k), q_ref.data() + r * ldq,
                             &gamma_ref[r], &sum_ref[r]);
        DequantizeRowRef(q_ref.data() + r * ldq, k, gamma_ref[r] / 127.0f, out_ref.data() + r * k);
      }
      ForEachIsa([&](Isa isa) {
        std::vector<int8_t> q(static_cast<size_t>(m * ldq), 55);
        std::vector<float> gamma(m), out(static_cast<size_t>(m * k));
        std::vector<int32_t> sum(m);
        AbsmaxQuantize(x.data(), 0, m, k, ldx, q.data(), ldq, gamma.data(), sum.data());
        DequantizeRows(q.data(), 0, m, k, ldq, gamma.data(), out.data(), k);
        EXPECT_EQ(q, q_ref) << ToString(isa) << " k " << k;
        EXPECT_EQ(gamma, gamma_ref) << ToString(isa);
        EXPECT_EQ(sum, sum_ref) << ToString(isa);
        EXPECT_EQ(out, out_ref) << ToString(isa);
      });
    }
  }
}

TEST(TernaryScaleTest, ByHandAndFloor) {
  const std::vector<float> w = {1.0f, -2.0f, 3.0f, -6.0f};
  EXPECT_EQ(TernaryScale(w.data(), 4, SerialFor), 3.0f);
  EXPECT_EQ(TernaryScale(w.data(), 0, SerialFor), kScaleFloor);
  const std::vector<float> zeros(5000, 0.0f);
  EXPECT_EQ(TernaryScale(zeros.data(), 5000, SerialFor), kScaleFloor);
  const std::vector<float> nan = {1.0f, std::nanf(""), 1.0f};
  EXPECT_TRUE(std::isnan(TernaryScale(nan.data(), 3, SerialFor)));
}

// The order is part of the definition: left to right in fp32, so that a large first value swallows
// small ones.
TEST(TernaryScaleTest, SumsLeftToRightWithinABlock) {
  std::vector<float> w(kAbsMeanBlock, 0.5f);
  w[0] = 16777216.0f;  // 2^24: adding 0.5 changes nothing.
  EXPECT_EQ(TernaryScale(w.data(), kAbsMeanBlock, SerialFor), 16777216.0f / 4096.0f);
  std::swap(w[0], w[kAbsMeanBlock -
                    1]);  // Now the small ones add up first: 4095 / 2 = 2047.5, rounded to even.
  EXPECT_EQ(TernaryScale(w.data(), kAbsMeanBlock, SerialFor), (16777216.0f + 2048.0f) / 4096.0f);
}

TEST(TernaryScaleTest, EqualsTheOracleForAnyCut) {
  for (int64_t count :
       {1, 4095, 4096, 4097, 7 * 4096, 8 * 4096, 8 * 4096 + 1, 17 * 4096 - 3, 40 * 4096 + 100}) {
    const std::vector<float> w = RandomFloats(count, static_cast<uint32_t>(count), 0.05f);
    const float expected = TernaryScaleRef(w.data(), count);
    for (const ParallelFor& parallel :
         {ParallelFor(SerialFor), ParallelFor(UnevenFor), ParallelFor(OneByOneFor)}) {
      EXPECT_EQ(TernaryScale(w.data(), count, parallel), expected) << count;
    }
  }
}

TEST(TernaryQuantizeTest, RoundsHalfToEvenByHand) {
  const std::vector<float> w = {0.5f, 0.51f, -0.5f, -0.51f, 1.5f, 40.0f, -3e38f, 3e38f, 0.0f};
  const std::vector<int8_t> expected = {0, 1, 0, -1, 1, 1, -1, 1, 0};
  ForEachIsa([&](Isa isa) {
    std::vector<uint8_t> t2(32);
    const TernaryCounts counts =
        TernaryQuantize(w.data(), 1, 9, 1.0f, t2.data(), nullptr, SerialFor);
    EXPECT_EQ(t2, PackMatrix(expected, 1, 9)) << ToString(isa);
    EXPECT_EQ(counts.zeros, 3);
    EXPECT_EQ(counts.flips, 0);
  });
}

TEST(TernaryQuantizeTest, CodesAndCountsEqualTheOracle) {
  for (int64_t k : {1, 16, 31, 100, 127, 128, 129, 256, 300, 768}) {
    const int64_t n = 13;
    const std::vector<float> w = RandomFloats(n * k, static_cast<uint32_t>(k), 0.1f);
    const float beta = TernaryScaleRef(w.data(), n * k);
    const std::vector<uint8_t> old = PackMatrix(RandomTernary(n * k, 8), n, k);
    std::vector<uint8_t> expected(old.size());
    const TernaryCounts ref =
        TernaryQuantizeRowsRef(w.data(), 0, n, k, 1.0f / beta, expected.data(), old.data());
    ForEachIsa([&](Isa isa) {
      std::vector<uint8_t> t2(old.size(), 0xFF), in_place = old;
      for (const ParallelFor& parallel : {ParallelFor(SerialFor), ParallelFor(OneByOneFor)}) {
        const TernaryCounts counts =
            TernaryQuantize(w.data(), n, k, beta, t2.data(), old.data(), parallel);
        EXPECT_EQ(t2, expected) << ToString(isa) << " k " << k;
        EXPECT_EQ(counts.zeros, ref.zeros) << ToString(isa) << " k " << k;
        EXPECT_EQ(counts.flips, ref.flips) << ToString(isa) << " k " << k;
      }
      const TernaryCounts counts =
          TernaryQuantize(w.data(), n, k, beta, in_place.data(), in_place.data(), SerialFor);
      EXPECT_EQ(in_place, expected) << ToString(isa) << " k " << k;
      EXPECT_EQ(counts.flips, ref.flips) << ToString(isa) << " k " << k;
    });
  }
}

}  // namespace
}  // namespace tern::kernels
