// The quantizers in libtorch's operations beside the CPU kernels, both on the CPU: the same bits.
#include "quant/device_neutral.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/ternary_quantize/ternary_quantize.h"
#include "quant/ternary.h"
#include "quant/ternary_rows.h"

namespace tern::quant {
namespace {

struct Shape {
  int64_t m, n, k;
};

// One element, odd sizes, sizes of whole blocks and planes, and one of many blocks.
constexpr Shape kShapes[] = {{1, 1, 1},      {3, 5, 7},        {2, 4, 128},
                             {17, 33, 129},  {20, 16, 512},    {5, 37, 1536},
                             {64, 300, 200}, {33, 1024, 2560}, {8, 3, 6912}};

class DeviceNeutralTest : public ::testing::TestWithParam<Shape> {
 protected:
  DeviceNeutralTest() {
    at::manual_seed(7);
    const auto [m, n, k] = GetParam();
    w_NK_ = at::randn({n, k}) * 0.03;
    x_MK_ = at::randn({m, k});
    x_MK_[0].zero_();  // A token of zeros has the least scale
  }
  at::Tensor w_NK_, x_MK_;
};

void ExpectEqual(const at::Tensor& neutral, const at::Tensor& kernel) {
  ASSERT_EQ(neutral.scalar_type(), kernel.scalar_type());
  ASSERT_EQ(neutral.sizes(), kernel.sizes());
  EXPECT_TRUE(at::equal(neutral, kernel)) << neutral.sizes();
}

TEST_P(DeviceNeutralTest, BlockSumsHaveTheKernelsBits) {
  const std::vector<float> want = BlockSums(w_NK_);
  const at::Tensor found_B = neutral::AbsBlockSums(w_NK_);
  ASSERT_EQ(found_B.numel(), static_cast<int64_t>(want.size()));
  for (size_t b = 0; b < want.size(); ++b)
    EXPECT_EQ(found_B[static_cast<int64_t>(b)].item<float>(), want[b]) << b;
}

TEST_P(DeviceNeutralTest, WeightsHaveTheKernelsCodesAndCounts) {
  const TernaryWeight before = QuantizeTernary(w_NK_);
  const at::Tensor moved_NK = w_NK_ + 0.01 * at::randn_like(w_NK_);
  const TernaryWeight want = QuantizeTernary(moved_NK, before.t2_NC);
  const TernaryWeight found = neutral::QuantizeTernary(moved_NK, want.beta, before.t2_NC);
  ExpectEqual(found.t2_NC, want.t2_NC);
  EXPECT_EQ(found.k, want.k);
  EXPECT_EQ(found.zeros, want.zeros);
  EXPECT_EQ(found.flips, want.flips);
  ExpectEqual(neutral::Dequantize(found, want.beta), Dequantize(want, want.beta));
}

TEST_P(DeviceNeutralTest, CodesSurvivePackingAndUnpacking) {
  const at::Tensor codes_NK = at::randint(-1, 2, w_NK_.sizes(), at::kChar);
  ExpectEqual(neutral::UnpackT2(neutral::PackT2(codes_NK), codes_NK.size(1)), codes_NK);
}

TEST_P(DeviceNeutralTest, InputsHaveTheKernelsCodesScalesAndSums) {
  const Int8Rows want = QuantizeRows(x_MK_), found = neutral::QuantizeRows(x_MK_);
  ExpectEqual(found.q_MK, want.q_MK);
  ExpectEqual(found.gamma_M, want.gamma_M);
  ExpectEqual(found.sum_M, want.sum_M);
  EXPECT_EQ(found.k, want.k);
  ExpectEqual(neutral::Dequantize(found), Dequantize(want));
}

TEST_P(DeviceNeutralTest, ProductsHaveTheKernelsBits) {
  const TernaryWeight w = QuantizeTernary(w_NK_);
  const Int8Rows x = QuantizeRows(x_MK_);
  ExpectEqual(neutral::TernaryMatMul(x, w), TernaryMatMul(x, w));
}

INSTANTIATE_TEST_SUITE_P(Shapes, DeviceNeutralTest, ::testing::ValuesIn(kShapes));

// Values on the halves, where rounding up and rounding to even part, and beyond the largest code.
TEST(DeviceNeutralRoundingTest, TiesGoToEven) {
  const at::Tensor w_NK =
      at::tensor({0.5f, -0.5f, 1.5f, -1.5f, 0.0f, 1.0f, -1.0f, 1.0f}).view({2, 4});
  const TernaryWeight want = QuantizeTernary(w_NK);
  ExpectEqual(neutral::QuantizeTernary(w_NK, want.beta, {}).t2_NC, want.t2_NC);
  // gamma is 127: the codes are the values rounded.
  const at::Tensor x_MK = at::tensor({0.5f, 1.5f, -0.5f, -2.5f, 126.5f, 127.0f}).view({1, 6});
  ExpectEqual(neutral::QuantizeRows(x_MK).q_MK, QuantizeRows(x_MK).q_MK);
}

// 128 x 2^17 = 2^24: beyond so many columns one fp32 sum may not be exact. All products have one
// sign, so that the sums are as large as they get.
TEST(DeviceNeutralExactnessTest, RowsTooLongForFp32SumsAreExact) {
  const int64_t k = (int64_t{1} << 20) + 5;
  const at::Tensor x_MK = at::rand({2, k}) + 0.5, w_NK = at::rand({3, k}) + 0.5;
  const Int8Rows x = QuantizeRows(x_MK);
  const TernaryWeight w = QuantizeTernary(w_NK);
  ASSERT_GT(x.sum_M.max().item<int>(), 1 << 24);
  ExpectEqual(neutral::TernaryMatMul(x, w), TernaryMatMul(x, w));
}

}  // namespace
}  // namespace tern::quant
