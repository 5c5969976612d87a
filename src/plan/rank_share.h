// What one rank of a training holds and sends, to the byte: the arithmetic of train/sharding.cc,
// train/gathered_codes.cc and train/tensor_codes.cc from shapes alone, uneven splits and padding
// included. The dry run (train/dry_run.h) counts the same in the running code and compares.
#pragma once

#include <cstdint>

#include "arch/model_config.h"
#include "parallel/traffic.h"
#include "plan/tensor_split.h"
#include "recipe/recipe.h"

namespace tern::plan {

// Of `ranks` that hold the same, those that spread the state among themselves: parallel.shard_size,
// or all. Throws RecipeError when it does not divide them.
int64_t ShardSize(const recipe::ParallelConfig& config, int64_t ranks);

// Bytes of tensors that a rank keeps from step to step, and of gradients when the last backward
// pass of a step is over.
struct HeldByRank {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t moments = 0;
  int64_t codes = 0;           // 2-bit weights of BitLinear: zero3 of all, tensor of slices
  int64_t largest_matrix = 0;  // Of those whose gradients are exchanged
  int64_t largest_linear = 0;  // Of those in layers
  int64_t exchanged = 0;       // All of those
  int64_t State() const { return parameters + gradients + moments + codes; }
};

// REQUIRES: rank < layout.ranks.
HeldByRank HeldBy(const ModelConfig& model, const recipe::ParallelConfig& config,
                  const parallel::RankLayout& layout, int64_t rank);

// Bytes of gradients that a rank has under way at most (train/sharding.cc), beside one more matrix:
// `exchanged` of them are in the model. Few, so that they do not become the memory that spreading
// saves; enough that exchanges hide behind backward.
int64_t MaxBytesUnderWay(int64_t exchanged);

// The rank that holds most. With fewer units of rows than ranks some have none.
int64_t FullestRank(const ModelConfig& model, const recipe::ParallelConfig& config,
                    const parallel::RankLayout& layout);

// In one step, without the few numbers that the ranks agree on ("control"). Empty for one rank.
parallel::TrafficByKind SentBy(const ModelConfig& model, const recipe::ParallelConfig& config,
                               const parallel::RankLayout& layout, int64_t rank,
                               const StepPasses& passes);

}  // namespace tern::plan
