// Which rank holds which rows of a matrix: consecutive ranges, in rank order, cut at multiples of a
// unit and as even as that allows. A matrix of fewer units than ranks leaves some ranks without
// rows.
#pragma once

#include <cstdint>
#include <vector>

namespace tern::parallel {

struct RowSplit {
  std::vector<int64_t> begin;  // [ranks + 1]: rank r has rows [begin[r], begin[r + 1])

  int64_t first(int rank) const { return begin[static_cast<size_t>(rank)]; }
  int64_t rows(int rank) const { return begin[static_cast<size_t>(rank) + 1] - first(rank); }
  int64_t all() const { return begin.back(); }
  int64_t most() const;                 // Rows of the rank that has most
  std::vector<int64_t> counts() const;  // rows(r) for each rank
};

RowSplit SplitRows(int64_t rows, int64_t unit, int ranks);

}  // namespace tern::parallel
