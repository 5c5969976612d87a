// One rank of a training without the others: the training code itself (TrainState, Sharding,
// gathered codes, libtorch's Reducer, AdamW) runs two steps of rank K of N in this process, over a
// group whose collectives answer as if the others had what this rank has (Group::Fake). Counted are
// collectives and tensors; neither depends on how long a sequence is, so sequences are of a few
// tokens, as many forward passes a step as the recipe says. Losses mean nothing. Over a real group
// the same steps count the same: the test's proof.
#pragma once

#include <cstdint>
#include <string>

#include "parallel/group.h"
#include "parallel/traffic.h"
#include "plan/plan.h"
#include "plan/rank_share.h"
#include "recipe/recipe.h"

namespace tern::train {

inline constexpr int64_t kDryRunTokens = 8;  // Of a sequence, at most

struct DryRunResult {
  parallel::TrafficByKind traffic;  // Of one step
  parallel::TrafficByKind sent;     // The same by arithmetic, for as many tokens
  int64_t tokens = 0;               // Of a sequence
  // Bytes of this rank's tensors: values, gradients after the last backward pass, moments, 2-bit
  // weights.
  int64_t parameters = 0, gradients = 0, moments = 0, codes = 0;
  plan::HeldByRank planned;  // The same by arithmetic
  // By the allocator (tensor_memory.h), of all threads: between two steps, and the most within.
  int64_t resting = 0, peak = 0;
};

// Every rank of the group calls it. Throws RecipeError (a stage that several ranks cannot train;
// sequences that do not divide), ResourceError before anything is made when this rank's part does
// not fit into the machine's free memory.
DryRunResult DryRun(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                    parallel::Group& group, int64_t tokens = kDryRunTokens);

// Lines below a plan of the same rank.
std::string FormatDryRun(const plan::TrainPlan& plan, const DryRunResult& result);

}  // namespace tern::train
