// Codes and scale of a matrix from pieces of it: the same bits as from the whole.
#include "quant/ternary_rows.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/ternary_pack/t2.h"
#include "quant/ternary.h"

namespace tern::quant {
namespace {

TEST(TernaryRowsTest, UnitsOfRowsAreWholeBlocks) {
  EXPECT_EQ(RowUnit(512), 8);
  EXPECT_EQ(RowUnit(1536), 8);
  EXPECT_EQ(RowUnit(4096), 1);
  EXPECT_EQ(RowUnit(2560), 8);
  EXPECT_EQ(RowUnit(7), 4096);
}

// Any cut at multiples of the unit; the last piece may be short, and pieces may be empty.
TEST(TernaryRowsTest, PiecesGiveTheWholeMatrixsBits) {
  at::manual_seed(3);
  for (const auto& [n, k] :
       {std::pair<int64_t, int64_t>{48, 512}, {37, 1536}, {5, 4096}, {30, 96}}) {
    const at::Tensor w = at::randn({n, k});
    const TernaryWeight want = QuantizeTernary(w);
    const int64_t unit = RowUnit(k);
    for (const int64_t cut : {int64_t{0}, unit, 3 * unit, n}) {
      const int64_t first = std::min(cut, n);
      std::vector<float> sums = BlockSums(w.narrow(0, 0, first));
      const std::vector<float> rest = BlockSums(w.narrow(0, first, n - first));
      sums.insert(sums.end(), rest.begin(), rest.end());
      ASSERT_EQ(static_cast<int64_t>(sums.size()), NumBlocks(n * k));
      const float beta = ScaleOfSums(sums.data(), n * k);
      EXPECT_EQ(beta, want.beta) << n << " x " << k << ", cut at " << first;
      at::Tensor t2 = at::zeros_like(want.t2_NC);
      QuantizeRowsTo(w.narrow(0, 0, first), beta, t2.narrow(0, 0, first));
      QuantizeRowsTo(w.narrow(0, first, n - first), beta, t2.narrow(0, first, n - first));
      EXPECT_TRUE(at::equal(t2, want.t2_NC));
    }
  }
}

}  // namespace
}  // namespace tern::quant
