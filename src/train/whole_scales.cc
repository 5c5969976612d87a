// See whole_scales.h.
#include "train/whole_scales.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/ternary_rows.h"

namespace tern::train {
namespace {

// What rank `rank` has of it.
int64_t BlocksOf(const ScaleRows& matrix, int rank) {
  return quant::NumBlocks(matrix.split.rows(rank) * matrix.k);
}

}  // namespace

std::vector<float> JoinScales(parallel::Group& group, const std::vector<ScaleRows>& matrices) {
  std::vector<int64_t> blocks(static_cast<size_t>(group.size()), 0);  // Of each rank
  for (const ScaleRows& m : matrices) {
    for (int rank = 0; rank < group.size(); ++rank)
      blocks[static_cast<size_t>(rank)] += BlocksOf(m, rank);
  }
  const int64_t longest = *std::max_element(blocks.begin(), blocks.end());
  const at::Tensor mine = at::empty({longest}, at::kFloat).zero_(),
                   all = at::empty({group.size(), longest}, at::kFloat);
  float* out = mine.mutable_data_ptr<float>();
  for (const ScaleRows& m : matrices) out = std::copy(m.sums.begin(), m.sums.end(), out);
  group.AllGather(mine, all, "scales").Wait();
  std::vector<float> betas;
  std::vector<int64_t> at(static_cast<size_t>(group.size()), 0);
  const float* data = all.const_data_ptr<float>();
  for (const ScaleRows& m : matrices) {
    std::vector<float> sums;
    for (int rank = 0; rank < group.size(); ++rank) {
      const int64_t count = BlocksOf(m, rank);
      const float* from = data + rank * longest + at[static_cast<size_t>(rank)];
      sums.insert(sums.end(), from, from + count);
      at[static_cast<size_t>(rank)] += count;
    }
    betas.push_back(quant::ScaleOfSums(sums.data(), m.split.all() * m.k));
    if (!std::isfinite(betas.back())) {
      throw NumericError(StrCat("weights [", m.split.all(), ", ", m.k,
                                "] hold NaN or Inf; the last good step is in journal.jsonl"));
    }
  }
  return betas;
}

}  // namespace tern::train
