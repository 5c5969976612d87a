// See matrix_slice.h.
#include "parallel/matrix_slice.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"

namespace tern::parallel {
namespace {

struct Rows {
  int64_t first = 0, count = 0;
};

// Of the matrix: rows that a slice and a rank's target have in common.
Rows Common(const MatrixSlice& slice, const RowSplit& target, int rank) {
  const int64_t first = std::max(slice.first_row, target.first(rank));
  const int64_t end =
      std::min(slice.first_row + slice.rows, target.first(rank) + target.rows(rank));
  return {first, std::max<int64_t>(end - first, 0)};
}

}  // namespace

int64_t ElementsSent(const MatrixSlice& from, const RowSplit& target, int to) {
  return Common(from, target, to).count * from.columns;
}

bool AreRows(const std::vector<MatrixSlice>& slices, const RowSplit& target) {
  for (size_t i = 0; i < slices.size(); ++i) {
    const int rank = static_cast<int>(i);
    const MatrixSlice& slice = slices[i];
    if (slice.first_column != slices[0].first_column || slice.first_row != target.first(rank) ||
        slice.rows != target.rows(rank))
      return false;
  }
  return true;
}

at::Tensor ExchangeRows(Group& group, const at::Tensor& mine_NK,
                        const std::vector<MatrixSlice>& slices, const RowSplit& target,
                        const char* kind) {
  const at::NoGradGuard no_grad;
  const MatrixSlice& mine = slices.at(static_cast<size_t>(group.rank()));
  TERN_CHECK(mine_NK.dim() == 2 && mine_NK.size(0) == mine.rows && mine_NK.size(1) == mine.columns,
             kind, ": ", mine_NK.sizes());
  int64_t k = 0;
  std::vector<int64_t> send, receive;
  for (int rank = 0; rank < group.size(); ++rank) {
    const MatrixSlice& theirs = slices[static_cast<size_t>(rank)];
    k = std::max(k, theirs.first_column + theirs.columns);
    send.push_back(ElementsSent(mine, target, rank));
    receive.push_back(ElementsSent(theirs, target, group.rank()));
  }
  // Target rows follow the ranks, so what goes to one lies in the slice after what goes to the one
  // before.
  const at::Tensor sent = mine_NK.contiguous().view({-1});
  at::Tensor rows_NK = at::empty({target.rows(group.rank()), k}, mine_NK.options());
  const at::Tensor received = at::empty({rows_NK.numel()}, mine_NK.options());
  group.AllToAll(sent, send, received, receive, kind).Wait();
  int64_t at = 0;
  for (int rank = 0; rank < group.size(); ++rank) {
    const MatrixSlice& theirs = slices[static_cast<size_t>(rank)];
    const Rows rows = Common(theirs, target, group.rank());
    if (rows.count == 0) continue;
    rows_NK.narrow(0, rows.first - target.first(group.rank()), rows.count)
        .narrow(1, theirs.first_column, theirs.columns)
        .copy_(
            received.narrow(0, at, rows.count * theirs.columns).view({rows.count, theirs.columns}));
    at += rows.count * theirs.columns;
  }
  TERN_CHECK(at == received.numel(), kind, ": the slices have ", at, " of ", received.numel(),
             " elements");
  return rows_NK;
}

}  // namespace tern::parallel
