// Tensor parallelism (Megatron-LM, arXiv 1909.08053): how the matrices of attention and FFN are cut
// over `parallel.tensor` ranks next to each other. q, k, v, gate and up by rows, q, k and v by
// whole heads; o and down by columns, so that what one cut makes is what the next one reads. Biases
// go with their rows; embedding, norms and head are on every rank. The other axis is data parallel:
// rank r is number r mod T of its group, and group r / T takes that share of the sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "arch/model_config.h"
#include "parallel/matrix_slice.h"
#include "parallel/traffic.h"
#include "recipe/recipe.h"

namespace tern::plan {

// Groups among which a step's sequences are divided: ranks / parallel.tensor. Throws RecipeError
// when that does not divide.
int64_t DataRanks(const recipe::ParallelConfig& config, int64_t ranks);

// The ranks that hold the same slices.
parallel::RankLayout DataLayout(const recipe::ParallelConfig& config,
                                const parallel::RankLayout& all);

// The forward passes of a step.
struct StepPasses {
  int64_t rows = 0;        // Tokens of one
  int64_t count = 1;       // On each rank
  bool run_again = false;  // Blocks run a second time in backward
};

// What a rank sends to the others of its tensor group in one step. Empty for parallel.tensor 1.
parallel::TrafficByKind TensorSent(const ModelConfig& model, const recipe::ParallelConfig& config,
                                   const parallel::RankLayout& all, int64_t rank,
                                   const StepPasses& passes);

// What each of `tensor` ranks holds of a parameter, of a bias [N] as of a matrix [N, 1]; empty: all
// of it. REQUIRES: recipe/check.cc has passed the recipe.
std::vector<parallel::MatrixSlice> TensorSlices(const ParameterSpec& spec, int64_t tensor);

}  // namespace tern::plan
