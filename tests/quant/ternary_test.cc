// Quantizers on tensors: scale and codes follow the definition, and the product is the integer
// product, bit for bit.
#include "quant/ternary.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <set>
#include <thread>
#include <tuple>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"
#include "quant/ternary_rows.h"
#include "quant/torch_parallel.h"

namespace tern::quant {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator);
}

// at::parallel_for is serial in files that are compiled without OpenMP, and nothing but the speed
// tells.
TEST(TorchParallelTest, UsesTheThreadsOfLibtorch) {
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  TorchParallel()(1000, 1, [&](int64_t, int64_t) {
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), 2u);
}

// The definition, written again without the kernels: row-major blocks of 4,096, fp32 inside, fp64
// across.
float ScaleOracle(const at::Tensor& w) {
  const float* data = w.const_data_ptr<float>();
  double total = 0;
  for (int64_t begin = 0; begin < w.numel(); begin += 4096) {
    float block = 0;
    for (int64_t i = begin; i < std::min<int64_t>(begin + 4096, w.numel()); ++i)
      block += std::fabs(data[i]);
    total += block;
  }
  return std::max(static_cast<float>(total / static_cast<double>(w.numel())), 1e-5f);
}

class TernaryTest : public testing::TestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(TernaryTest, CodesAndScaleFollowTheDefinition) {
  const auto [n, k] = GetParam();
  const at::Tensor w_NK = Random({n, k}, 1);
  const TernaryWeight w = QuantizeTernary(w_NK);
  EXPECT_EQ(w.beta, ScaleOracle(w_NK));
  const at::Tensor codes =
      (w_NK * (1.0f / w.beta)).round().clamp(-1, 1);  // ATen rounds half to even.
  EXPECT_TRUE(at::equal(Dequantize(w, 1.0f), codes));
  EXPECT_EQ(w.zeros, (codes == 0).sum().item<int64_t>());
}

// Factors 4 and -1 are exact in fp32, so equality is exact.
TEST_P(TernaryTest, CodesIgnorePositiveScaleAndFollowSign) {
  const auto [n, k] = GetParam();
  const at::Tensor w_NK = Random({n, k}, 42);
  const at::Tensor base = Dequantize(QuantizeTernary(w_NK), 1.0f);
  EXPECT_TRUE(at::equal(Dequantize(QuantizeTernary(4 * w_NK), 1.0f), base));
  EXPECT_TRUE(at::equal(Dequantize(QuantizeTernary(-w_NK), 1.0f), -base));
}

TEST_P(TernaryTest, ProductEqualsTheIntegerOracle) {
  const auto [n, k] = GetParam();
  const int64_t m = 37;
  const at::Tensor x_MK = Random({m, k}, 2) * 3;
  const TernaryWeight w = QuantizeTernary(Random({n, k}, 3));
  const Int8Rows x = QuantizeRows(x_MK);
  const at::Tensor acc_MN = at::mm(x.q_MK.narrow(1, 0, k).to(at::kDouble),
                                   Dequantize(w, 1.0f).to(at::kDouble).t());  // Exact integers.
  const at::Tensor y_MN = TernaryMatMul(x, w);
  for (int64_t i = 0; i < m; ++i) {
    const float scale = w.beta * (x.gamma_M[i].item<float>() / 127.0f);
    EXPECT_TRUE(at::equal(y_MN[i], acc_MN[i].to(at::kFloat) * scale)) << "row " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, TernaryTest,
                         testing::Values(std::pair{1, 1}, std::pair{3, 127}, std::pair{5, 128},
                                         std::pair{64, 256}, std::pair{33, 300},
                                         std::pair{130, 1536}));

TEST(TernaryTest, CountsFlipsAgainstEarlierCodes) {
  at::Tensor w_NK = at::ones({2, 256});
  const TernaryWeight before = QuantizeTernary(w_NK);
  w_NK[1][7] = -1;
  w_NK[0][3] = 0;
  EXPECT_EQ(QuantizeTernary(w_NK, before.t2_NC).flips, 2);
  EXPECT_EQ(QuantizeTernary(w_NK).flips, 0);
}

TEST(TernaryTest, RefusesWeightsThatAreNotFinite) {
  at::Tensor w_NK = at::ones({4, 8});
  w_NK[2][3] = std::nanf("");
  EXPECT_THROW(QuantizeTernary(w_NK), NumericError);
  w_NK[2][3] = INFINITY;
  EXPECT_THROW(QuantizeTernary(w_NK), NumericError);
}

TEST(TernaryTest, AllZeroInputsKeepTheFloors) {
  EXPECT_EQ(QuantizeTernary(at::zeros({3, 5})).beta, 1e-5f);
  const Int8Rows x = QuantizeRows(at::zeros({2, 5}));
  EXPECT_TRUE(at::equal(x.gamma_M, at::full({2}, 1e-5f)));
  EXPECT_EQ(x.q_MK.abs().sum().item<int64_t>(), 0);
}

// Columns of a product, wherever they are cut: their codes are those of the whole rows, their sums
// add up to the whole ones', and scaled they are TernaryMatMul, bit for bit.
TEST(TernaryColumnsTest, PartsGiveTheBitsOfTheWholeProduct) {
  for (const auto& [m, k, parts] :
       {std::tuple{5, 192, 3}, std::tuple{1, 512, 4}, std::tuple{7, 260, 2}}) {
    const at::Tensor x_MK = Random({m, k}, 5), w_NK = Random({33, k}, 6);
    const Int8Rows x = QuantizeRows(x_MK);
    const TernaryWeight w = QuantizeTernary(w_NK);
    const int64_t columns = k / parts;
    at::Tensor sum_MN = at::zeros({m, 33});
    for (int64_t part = 0; part < parts; ++part) {
      const Int8Rows cut = ColumnsOf(x, part * columns, columns);
      const Int8Rows made =
          QuantizeColumns(x_MK.narrow(1, part * columns, columns).contiguous(), x_MK.abs().amax(1));
      EXPECT_TRUE(at::equal(made.q_MK, cut.q_MK) && at::equal(made.sum_M, cut.sum_M) &&
                  at::equal(made.gamma_M, cut.gamma_M) && made.k == columns);
      TernaryWeight mine;
      mine.t2_NC = at::empty({33, kernels::T2RowBytes(columns)}, at::kByte);
      mine.beta = w.beta;
      mine.k = columns;
      QuantizeRowsTo(w_NK.narrow(1, part * columns, columns).contiguous(), w.beta, mine.t2_NC);
      sum_MN += TernarySums(cut, mine);
    }
    EXPECT_TRUE(at::equal(ScaleSums(sum_MN, x.gamma_M, w.beta), TernaryMatMul(x, w))) << k;
  }
  EXPECT_TRUE(SumsAreExact(132104));
  EXPECT_FALSE(SumsAreExact(132105));
}

}  // namespace
}  // namespace tern::quant
