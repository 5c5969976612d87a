// What one rank of a training holds and sends, to the byte: the arithmetic of train/sharding.cc and
// train/gathered_codes.cc from shapes alone, uneven splits and padding included. The dry run
// (train/dry_run.h) counts the same in the running code and compares.
#pragma once

#include <cstdint>

#include "arch/model_config.h"
#include "parallel/traffic.h"
#include "recipe/recipe.h"

namespace tern::plan {

// Bytes of tensors that a rank keeps from step to step, and of gradients when the last backward
// pass of a step is over.
struct HeldByRank {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t moments = 0;
  int64_t codes = 0;           // zero3: 2-bit weights of all BitLinear matrices
  int64_t largest_matrix = 0;  // Of those whose gradients are exchanged
  int64_t exchanged = 0;       // All of those
  int64_t State() const { return parameters + gradients + moments + codes; }
};

// REQUIRES: rank < layout.ranks.
HeldByRank HeldBy(const ModelConfig& model, const recipe::ParallelConfig& config,
                  const parallel::RankLayout& layout, int64_t rank);

// The rank that holds most. With fewer units of rows than ranks some have none.
int64_t FullestRank(const ModelConfig& model, const recipe::ParallelConfig& config,
                    const parallel::RankLayout& layout);

// In one step of `micro_batches` backward passes; without the few numbers that the ranks agree on
// ("control"). Empty for one rank.
parallel::TrafficByKind SentBy(const ModelConfig& model, const recipe::ParallelConfig& config,
                               const parallel::RankLayout& layout, int64_t rank,
                               int64_t micro_batches);

}  // namespace tern::plan
