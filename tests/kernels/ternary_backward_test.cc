// The oracles of BitLinear's backward pass against values and products worked out here another way:
// the library's rounding to bf16, dequantized weights, sums from the last term to the first.
#include "kernels/ternary_backward/ternary_backward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/bf16/bf16.h"
#include "kernels/ternary_pack/t2.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

constexpr int64_t kM = 5, kN = 11, kK = 150, kLd = 24;

TEST(TernaryBackwardTest, RoundsGradientsOnceAndPadsWithZeros) {
  std::vector<float> dy(kM * kN), scaled_dy(kM * kN), gamma = {127.0f, 0.3f, 1e-5f, 90.0f, 254.0f};
  std::mt19937 random(1);
  for (float& v : dy) v = static_cast<float>(random() * 0x1p-31 - 1.0);
  for (int64_t i = 0; i < kM * kN; ++i)
    scaled_dy[static_cast<size_t>(i)] =
        dy[static_cast<size_t>(i)] * (gamma[static_cast<size_t>(i / kN)] / 127.0f);
  std::vector<uint16_t> plain(kM * kLd, 7), scaled(kM * kLd, 7), want(kM * kN), want_scaled = want;
  RoundGradientRef({dy.data(), gamma.data(), plain.data(), scaled.data(), kM, kN, kN, kLd});
  Fp32ToBf16(dy.data(), kM * kN, want.data(), SerialFor);
  Fp32ToBf16(scaled_dy.data(), kM * kN, want_scaled.data(), SerialFor);
  for (int64_t m = 0; m < kM; ++m) {
    for (int64_t n = 0; n < kLd; ++n) {
      const auto at = static_cast<size_t>(m * kLd + n), from = static_cast<size_t>(m * kN + n);
      const bool padding = n >= kN && n < 16, beside = n >= 16;
      EXPECT_EQ(plain[at], beside ? 7 : padding ? 0 : want[from]) << m << " " << n;
      EXPECT_EQ(scaled[at], beside ? 7 : padding ? 0 : want_scaled[from]) << m << " " << n;
    }
  }
  EXPECT_EQ(scaled[3], plain[3]) << "127 / 127 is 1";
}

// Sums of 11 and 5 terms in fp64, in another order: equal after rounding to fp32 but for ties, of
// which there are none here; then one product.
TEST(TernaryBackwardTest, ProductsAreTheFormula) {
  std::mt19937 random(2);
  std::vector<int8_t> codes(kN * kK), x(kM * 256);
  for (int8_t& v : codes) v = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
  for (int8_t& v : x) v = static_cast<int8_t>(random());
  std::vector<uint8_t> t2(kN * T2RowBytes(kK));
  for (int64_t n = 0; n < kN; ++n)
    PackT2Row(codes.data() + n * kK, kK, t2.data() + n * T2RowBytes(kK));
  std::vector<uint16_t> dy(kM * kLd);
  std::vector<float> values(kM * kLd), w(kN * kK), dx(kM * kK, 2.0f), dw(kN * kK);
  for (float& v : values) v = static_cast<float>(static_cast<int>(random() % 255) - 127) / 64.0f;
  Fp32ToBf16(values.data(), kM * kLd, dy.data(), SerialFor);
  DequantizeT2(t2.data(), 0, kN, kK, 1.0f, w.data(), kK);
  TernaryInputGradientRef({dy.data(), t2.data(), dx.data(), 0.7f, true, kM, kN, kK, kLd, kK});
  TernaryWeightGradientRef({dy.data(), x.data(), dw.data(), kM, kN, kK, kLd, 256, kK});
  const auto at = [&](const std::vector<float>& v, int64_t row, int64_t ld, int64_t column) {
    return double{v[static_cast<size_t>(row * ld + column)]};
  };
  for (int64_t k = 0; k < kK; ++k) {
    for (int64_t m = 0; m < kM; ++m) {
      double sum = 0.0;
      for (int64_t n = kN - 1; n >= 0; --n) sum += at(values, m, kLd, n) * at(w, n, kK, k);
      EXPECT_EQ(at(dx, m, kK, k), 2.0f + static_cast<float>(sum) * 0.7f) << m << " " << k;
    }
    for (int64_t n = 0; n < kN; ++n) {
      double sum = 0.0;
      for (int64_t m = kM - 1; m >= 0; --m)
        sum += at(values, m, kLd, n) * x[static_cast<size_t>(m * 256 + k)];
      EXPECT_EQ(at(dw, n, kK, k), static_cast<float>(sum)) << n << " " << k;
    }
  }
}

}  // namespace
}  // namespace tern::kernels
