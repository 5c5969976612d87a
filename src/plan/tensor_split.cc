// See tensor_split.h.
#include "plan/tensor_split.h"

#include <algorithm>

#include "base/error.h"
#include "quant/ternary_rows.h"

namespace tern::plan {
namespace {

enum class Cut { kNone, kRows, kColumns };

Cut CutOf(const ParameterSpec& spec) {
  if (spec.role == ParameterRole::kBias) return Cut::kRows;
  if (spec.role != ParameterRole::kLinear) return Cut::kNone;
  for (const char* name : {".o_proj.weight", ".down_proj.weight"}) {
    if (spec.name.ends_with(name)) return Cut::kColumns;
  }
  return Cut::kRows;
}

}  // namespace

int64_t DataRanks(const recipe::ParallelConfig& config, int64_t ranks) {
  if (ranks % config.tensor != 0) {
    throw RecipeError(StrCat("parallel.tensor: found ", config.tensor, ", which does not divide ",
                             ranks, ranks == 1 ? " rank" : " ranks", "; want --ranks ",
                             config.tensor, " or a multiple of it, or another parallel.tensor"));
  }
  return ranks / config.tensor;
}

std::vector<parallel::MatrixSlice> TensorSlices(const ParameterSpec& spec, int64_t tensor) {
  const Cut cut = CutOf(spec);
  if (tensor == 1 || cut == Cut::kNone) return {};
  const int64_t n = spec.shape[0], k = spec.shape.size() == 2 ? spec.shape[1] : 1;
  const int64_t divided = cut == Cut::kRows ? n : k, share = divided / tensor;
  TERN_CHECK(share * tensor == divided, spec.name, ": ", divided, " among ", tensor);
  std::vector<parallel::MatrixSlice> slices;
  for (int64_t rank = 0; rank < tensor; ++rank) {
    slices.push_back(cut == Cut::kRows ? parallel::MatrixSlice{rank * share, share, 0, k}
                                       : parallel::MatrixSlice{0, n, rank * share, share});
  }
  return slices;
}

parallel::RankLayout DataLayout(const recipe::ParallelConfig& config,
                                const parallel::RankLayout& all) {
  return {DataRanks(config, all.ranks), std::max<int64_t>(all.per_machine / config.tensor, 1)};
}

namespace {

constexpr int64_t kFloat = 4;  // Bytes

// Sums and gathers of the products themselves (nn/tensor_group.h, nn/bit_linear.cc).
void CountProducts(const ModelConfig& model, const parallel::RankLayout& group,
                   const StepPasses& passes, parallel::TrafficByKind* sent) {
  const auto sum = [&](int64_t elements) {
    (*sent)["tensor sums"] += parallel::SumTraffic(group, kFloat * elements);
  };
  const auto gather = [&](int64_t elements) {
    (*sent)["tensor columns"] += parallel::GatherTraffic(group, kFloat * elements);
  };
  const int64_t inputs[] = {model.num_heads * model.HeadDim(), model.intermediate_size};  // o, down
  for (int output = 0; output < 2; ++output) {
    const int64_t mine = passes.rows * inputs[output] / group.ranks;
    for (int run = 0; run < (passes.run_again ? 2 : 1); ++run) {
      if (model.HasOutputNorms()) {
        gather(mine);
      } else if (model.linear == LinearKind::kBitLinear) {
        gather(passes.rows);  // The largest value of each row
      }
      sum(passes.rows * model.hidden_size);
    }
    if (model.HasOutputNorms()) gather(mine);  // Their gradient
    // That of what q, k and v or gate and up read, of each where it has a norm of its own
    const int readers = !model.HasInputNorms() ? 1 : output == 0 ? 3 : 2;
    for (int i = 0; i < readers; ++i) sum(passes.rows * model.hidden_size);
  }
  for (int gains = 0; model.qk_norm && gains < 2; ++gains) sum(model.HeadDim());
}

// Rows for the blocks of scales, and the blocks' sums (train/tensor_codes.cc).
void CountScales(const ModelConfig& model, const parallel::RankLayout& group, int rank,
                 parallel::TrafficByKind* sent) {
  const auto ranks = static_cast<int>(group.ranks);
  std::vector<int64_t> blocks(static_cast<size_t>(ranks), 0);
  for (const ParameterSpec& spec : ParameterTable(model)) {
    if (spec.role != ParameterRole::kLinear) continue;
    const int64_t k = spec.shape[1];
    const auto slices = TensorSlices(spec, ranks);
    const auto split = parallel::SplitRows(spec.shape[0], quant::RowUnit(k), ranks);
    std::vector<int64_t> bytes_to;
    for (int to = 0; to < ranks; ++to) {
      blocks[static_cast<size_t>(to)] += quant::NumBlocks(split.rows(to) * k);
      bytes_to.push_back(kFloat *
                         parallel::ElementsSent(slices[static_cast<size_t>(rank)], split, to));
    }
    if (!parallel::AreRows(slices, split))
      (*sent)["latents"] += parallel::ExchangeTraffic(group, rank, bytes_to);
  }
  (*sent)["scales"] +=
      parallel::GatherTraffic(group, kFloat * *std::max_element(blocks.begin(), blocks.end()));
}

}  // namespace

parallel::TrafficByKind TensorSent(const ModelConfig& model, const recipe::ParallelConfig& config,
                                   const parallel::RankLayout& all, int64_t rank,
                                   const StepPasses& passes) {
  parallel::TrafficByKind sent;
  if (config.tensor == 1) return sent;
  const parallel::RankLayout group = {config.tensor, std::min(config.tensor, all.per_machine)};
  for (int64_t i = 0; i < passes.count * model.num_layers; ++i)
    CountProducts(model, group, passes, &sent);
  if (model.linear == LinearKind::kBitLinear)
    CountScales(model, group, static_cast<int>(rank % config.tensor), &sent);
  return sent;
}

}  // namespace tern::plan
