// Slices of a matrix become whole rows, however the matrix is cut.
#include "parallel/matrix_slice.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parallel/rank_threads.h"

namespace tern::parallel {
namespace {

constexpr int64_t kRows = 12, kColumns = 9;

at::Tensor Whole() { return at::arange(kRows * kColumns, at::kFloat).view({kRows, kColumns}); }

// Returns the elements that each rank sent to others.
std::vector<int64_t> Exchange(const std::vector<MatrixSlice>& slices, const RowSplit& target) {
  const int ranks = static_cast<int>(slices.size());
  std::vector<int64_t> sent(slices.size());
  RunRankThreads(ranks, [&](Group& group) {
    const MatrixSlice& mine = slices[static_cast<size_t>(group.rank())];
    const at::Tensor slice = Whole()
                                 .narrow(0, mine.first_row, mine.rows)
                                 .narrow(1, mine.first_column, mine.columns);
    group.ResetTraffic();
    const at::Tensor rows = ExchangeRows(group, slice, slices, target, "rows");
    EXPECT_TRUE(at::equal(
        rows, Whole().narrow(0, target.first(group.rank()), target.rows(group.rank()))))
        << group.rank();
    sent[static_cast<size_t>(group.rank())] =
        group.traffic().at("rows").payload_bytes / static_cast<int64_t>(sizeof(float));
  });
  return sent;
}

TEST(MatrixSliceTest, ColumnsBecomeRows) {
  const std::vector<MatrixSlice> slices = {{0, kRows, 0, 3}, {0, kRows, 3, 3}, {0, kRows, 6, 3}};
  const RowSplit target = SplitRows(kRows, 4, 3);
  EXPECT_EQ(Exchange(slices, target), (std::vector<int64_t>{24, 24, 24}));
  EXPECT_FALSE(AreRows(slices, target));
  // Fewer units than ranks: some get nothing.
  EXPECT_EQ(Exchange(slices, SplitRows(kRows, 12, 3)), (std::vector<int64_t>{36, 36, 0}));
}

TEST(MatrixSliceTest, RowsMoveToWhereTheyAreCutOtherwise) {
  const std::vector<MatrixSlice> slices = {{0, 6, 0, kColumns}, {6, 6, 0, kColumns}};
  EXPECT_EQ(Exchange(slices, SplitRows(kRows, 4, 2)), (std::vector<int64_t>{2 * kColumns, 0}));
  EXPECT_EQ(Exchange(slices, SplitRows(kRows, 1, 2)), (std::vector<int64_t>{0, 0}));
  EXPECT_TRUE(AreRows(slices, SplitRows(kRows, 1, 2)));
  EXPECT_FALSE(AreRows(slices, SplitRows(kRows, 4, 2)));
}

}  // namespace
}  // namespace tern::parallel
