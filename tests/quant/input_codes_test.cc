// INT4 codes of a token and the Hadamard transform against their definitions.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "quant/hadamard.h"
#include "quant/int4_rows.h"

namespace tern::quant {
namespace {

at::Tensor Inputs(int64_t m, int64_t k, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::empty({m, k}, at::kFloat).normal_(0, 1.7, generator);
}

TEST(Int4RowsTest, CodesAndScalesAreTheFormulas) {
  for (const int64_t k : {1, 3, 64, 129, 576}) {
    for (const Int4Scale kind : {Int4Scale::kAbsmean, Int4Scale::kAbsmax}) {
      const at::Tensor x = Inputs(5, k, static_cast<uint64_t>(k));
      const Int8Rows rows = QuantizeRowsInt4(x, kind);
      EXPECT_EQ(rows.top, 7);
      const at::Tensor values = Dequantize(rows);
      for (int64_t m = 0; m < 5; ++m) {
        double s = 0;
        for (int64_t i = 0; i < k; ++i) {
          const double size = std::fabs(x[m][i].item<double>());
          s = kind == Int4Scale::kAbsmax ? std::max(s, size) : s + size / static_cast<double>(k);
        }
        s /= kind == Int4Scale::kAbsmax ? 7 : std::sqrt(7.0);
        // gamma is 127 s: the scale is rounded four times on its way (s, its division, 127 s and /
        // 127).
        EXPECT_NEAR(rows.gamma_M[m].item<double>() / 127, s, 4 * 0x1p-24 * s);
        int32_t sum = 0;
        for (int64_t i = 0; i < k; ++i) {
          const double u = x[m][i].item<double>() / s;
          const int code = rows.q_MK[m][i].item<int>();
          sum += code;
          // The nearest code; at a border, to rounding, either neighbour.
          EXPECT_LE(std::fabs(code - std::min(std::max(u, -8.0), 7.0)), 0.5 + 1e-5) << u;
          EXPECT_NEAR(values[m][i].item<double>(), code * s, 5 * 0x1p-24 * std::fabs(code * s));
        }
        EXPECT_EQ(rows.sum_M[m].item<int32_t>(), sum);
      }
      for (int64_t i = k; i < rows.q_MK.size(1); ++i)
        EXPECT_EQ(rows.q_MK[2][i].item<int>(), 0);  // Padding
    }
  }
}

// What is not finite reaches the outputs, and the other rows do not see it.
TEST(Int4RowsTest, ARowThatIsNotFiniteStaysSo) {
  for (const Int4Scale kind : {Int4Scale::kAbsmean, Int4Scale::kAbsmax}) {
    const at::Tensor x = Inputs(4, 65, 3);
    const Int8Rows want = QuantizeRowsInt4(x, kind);
    at::Tensor bad = x.clone();
    bad[0][64] = NAN;
    bad[1][0] = INFINITY;
    bad[2][5] = NAN;
    bad[2][6] = 2.0f;
    const Int8Rows rows = QuantizeRowsInt4(bad, kind);
    for (int64_t m = 0; m < 3; ++m) {
      EXPECT_TRUE(std::isnan(rows.gamma_M[m].item<float>())) << "row " << m;
      EXPECT_EQ(rows.sum_M[m].item<int32_t>(), 0);
    }
    EXPECT_TRUE(at::equal(rows.q_MK[3], want.q_MK[3]));
    EXPECT_EQ(rows.gamma_M[3].item<float>(), want.gamma_M[3].item<float>());
  }
}

TEST(Int4RowsTest, HalfToEvenAndClipped) {
  const at::Tensor x = at::tensor({3.0f, 1.0f, -1.0f, 0.0f}).view({1, 4});
  const Int8Rows rows = QuantizeRowsInt4(x, Int4Scale::kAbsmax);  // s = 3/7
  EXPECT_EQ(rows.q_MK[0][0].item<int>(), 7);
  EXPECT_EQ(rows.q_MK[0][1].item<int>(), 2);
  EXPECT_EQ(rows.q_MK[0][2].item<int>(), -2);
  EXPECT_EQ(rows.q_MK[0][3].item<int>(), 0);
  at::Tensor outlier = at::full({1, 64}, 0.01f);
  outlier[0][5] = 100;
  outlier[0][6] = -100;
  const Int8Rows clipped = QuantizeRowsInt4(outlier, Int4Scale::kAbsmean);
  EXPECT_EQ(clipped.q_MK[0][5].item<int>(), 7);
  EXPECT_EQ(clipped.q_MK[0][6].item<int>(), -8);
  // absmax: s = 7 / 7 = 1, so halves are exact.
  const Int8Rows halves = QuantizeRowsInt4(
      at::tensor({7.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f}).view({1, 6}), Int4Scale::kAbsmax);
  const int want[] = {7, 0, 2, 2, 0, -2};
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(halves.q_MK[0][i].item<int>(), want[i]) << i;
}

TEST(Int4RowsTest, ARowOfZerosIsZeros) {
  for (const Int4Scale kind : {Int4Scale::kAbsmean, Int4Scale::kAbsmax})
    EXPECT_TRUE(
        at::equal(Dequantize(QuantizeRowsInt4(at::zeros({2, 32}), kind)), at::zeros({2, 32})));
}

// The matrix by its definition: sign of the parity of i & j.
at::Tensor Matrix(int64_t k, int64_t block) {
  at::Tensor h = at::zeros({k, k}, at::kDouble);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = i / block * block; j < (i / block + 1) * block; ++j) {
      const int parity = std::popcount(static_cast<uint64_t>((i % block) & (j % block))) % 2;
      h[i][j] = (parity == 0 ? 1.0 : -1.0) / std::sqrt(static_cast<double>(block));
    }
  }
  return h;
}

TEST(HadamardTest, IsTheMatrixInBlocks) {
  for (const auto& [k, block] : {std::pair<int64_t, int64_t>{1, 1},
                                 {2, 2},
                                 {3, 1},
                                 {16, 16},
                                 {48, 16},
                                 {256, 256},
                                 {576, 64}}) {
    EXPECT_EQ(HadamardBlock(k), block);
    const at::Tensor x = Inputs(9, k, 4);
    const at::Tensor want = at::matmul(x.to(at::kDouble), Matrix(k, block));
    // log2(block) + 1 roundings of values of at most |x|_2 of a block, some 1.7 sqrt(block).
    const double bound = 10 * 0x1p-24 * 1.7 * 3 * std::sqrt(static_cast<double>(block)) + 1e-7;
    EXPECT_LT((Hadamard(x) - want).abs().max().item<double>(), bound) << k;
    EXPECT_LT((Hadamard(Hadamard(x)) - x).abs().max().item<double>(), 2 * bound) << k;
  }
}

TEST(HadamardTest, ThreadsDoNotMatter) {
  const at::Tensor x = Inputs(100, 576, 5);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor alone = Hadamard(x);
  at::set_num_threads(3);
  EXPECT_TRUE(at::equal(Hadamard(x), alone));
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace tern::quant
