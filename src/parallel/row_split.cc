// See row_split.h.
#include "parallel/row_split.h"

#include <algorithm>

#include "base/error.h"

namespace tern::parallel {

int64_t RowSplit::most() const {
  const std::vector<int64_t> all = counts();
  return *std::max_element(all.begin(), all.end());
}

std::vector<int64_t> RowSplit::counts() const {
  std::vector<int64_t> counts;
  for (size_t r = 0; r + 1 < begin.size(); ++r) counts.push_back(begin[r + 1] - begin[r]);
  return counts;
}

RowSplit SplitRows(int64_t rows, int64_t unit, int ranks) {
  TERN_CHECK(rows >= 0 && unit > 0 && ranks > 0, rows, " rows, unit ", unit, ", ", ranks, " ranks");
  const int64_t units = (rows + unit - 1) / unit;
  RowSplit split;
  for (int64_t r = 0; r <= ranks; ++r) {
    split.begin.push_back(std::min(rows, units * r / ranks * unit));
  }
  return split;
}

}  // namespace tern::parallel
