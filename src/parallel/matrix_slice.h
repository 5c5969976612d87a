// Slices of a matrix that ranks of a group hold, a rectangle each, and their way to whole rows:
// what is defined along rows (the blocks of a BitLinear's scale, parts of checkpoints) is made from
// slices along columns without any rank having the matrix.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/group.h"
#include "parallel/row_split.h"

namespace tern::parallel {

// Rows [first_row, first_row + rows) and columns [first_column, first_column + columns).
struct MatrixSlice {
  int64_t first_row = 0, rows = 0;
  int64_t first_column = 0, columns = 0;
};

// The whole rows target.rows(rank) of an fp32 matrix [N, K], contiguous. slices: what each rank of
// the group has; together they are the matrix. mine_NK: this rank's. A collective; sends what other
// ranks need of the slice, and nothing where all of it stays.
at::Tensor ExchangeRows(Group& group, const at::Tensor& mine_NK,
                        const std::vector<MatrixSlice>& slices, const RowSplit& target,
                        const char* kind);

// Elements that rank `from` sends to rank `to` in it.
int64_t ElementsSent(const MatrixSlice& from, const RowSplit& target, int to);

// Whether every rank has the target's rows already: then nothing is to be exchanged.
bool AreRows(const std::vector<MatrixSlice>& slices, const RowSplit& target);

}  // namespace tern::parallel
