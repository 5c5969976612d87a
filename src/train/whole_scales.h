// The scales of BitLinear matrices whose rows are on several ranks: every rank sums the blocks of
// its rows, all get all sums and join them in their order, so that each beta has the bits of one
// process (quant/ternary_rows.h).
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/group.h"
#include "parallel/row_split.h"

namespace tern::train {

struct ScaleRows {
  std::vector<float> sums;   // quant::BlockSums of this rank's rows
  parallel::RowSplit split;  // Cut at multiples of quant::RowUnit(k)
  int64_t k = 0;
};

// beta of each matrix, in one exchange: 4 bytes for 4,096 weights. A collective. Throws
// NumericError, on all ranks, when a matrix holds NaN or Inf.
std::vector<float> JoinScales(parallel::Group& group, const std::vector<ScaleRows>& matrices);

}  // namespace tern::train
