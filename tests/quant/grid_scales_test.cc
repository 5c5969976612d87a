// Scales found again from the values that they made.
#include "quant/grid_scales.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <limits>

namespace tern::quant {
namespace {

at::Tensor Random(int64_t n, int64_t k, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::empty({n, k}, at::kFloat).normal_(0.003, 0.02, generator);
}

void ExpectHolds(const at::Tensor& value_NK, const WeightFormat& format) {
  const auto found = ScalesOnGrid(value_NK, format);
  ASSERT_TRUE(found.has_value()) << format.Describe();
  const QuantizedWeight q = QuantizeWith(value_NK, format, *found);
  EXPECT_TRUE(at::equal(Dequantize(q), value_NK)) << format.Describe();
  EXPECT_TRUE(at::equal(found->scale_RC, RoundScales(format.scale_dtype, found->scale_RC)));
}

TEST(GridScalesTest, HoldTheValuesOfEveryFormatOfIntegers) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const int64_t group : {0, 16, 64}) {
      for (const bool symmetric : {true, false}) {
        const WeightFormat format = IntFormat(bits, group, symmetric);
        RangeSearch mse;
        mse.method = RangeSearch::Method::kMse;
        for (const RangeSearch& range : {RangeSearch{}, mse})
          ExpectHolds(Dequantize(Quantize(Random(37, 192, 5), format, range)), format);
      }
    }
  }
}

TEST(GridScalesTest, FewCodesAndNone) {
  at::Tensor value_NK = at::zeros({3, 32});
  value_NK[1][3] = -0.0625f;  // One code, which may be any
  value_NK[2].fill_(0.375f);  // Three times a power of two: of one sign
  for (const bool symmetric : {true, false}) ExpectHolds(value_NK, IntFormat(4, 32, symmetric));
}

TEST(GridScalesTest, OtherValuesHaveNone) {
  EXPECT_FALSE(ScalesOnGrid(Random(4, 64, 6), IntFormat(4, 32)).has_value());
  // Of 4 bits, but not of 3; in groups of 16, but not of 32.
  const at::Tensor four_NK = Dequantize(Quantize(Random(4, 64, 7), IntFormat(4, 16)));
  EXPECT_TRUE(ScalesOnGrid(four_NK, IntFormat(4, 16)).has_value());
  EXPECT_FALSE(ScalesOnGrid(four_NK, IntFormat(3, 16)).has_value());
  EXPECT_FALSE(ScalesOnGrid(four_NK, IntFormat(4, 32)).has_value());
  at::Tensor nan_NK = four_NK.clone();
  nan_NK[0][0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(ScalesOnGrid(nan_NK, IntFormat(4, 16)).has_value());
}

}  // namespace
}  // namespace tern::quant
