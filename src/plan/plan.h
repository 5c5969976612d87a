// What a job will cost, before anything is loaded: parameters, memory by category, tokens,
// floating-point work, time. Memory is derived from what the trainer keeps (formulas beside each
// term in plan.cc) and compared with the measured peak at the end of a run; time is the work
// divided by a share of this machine's measured GEMM peak.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arch/model_config.h"
#include "parallel/traffic.h"
#include "recipe/recipe.h"

namespace tern::plan {

// Forward and backward multiply-adds of one token, times two: 6 a matrix weight, plus causal
// attention's two products over half the sequence. Embedding look-ups, norms and element-wise work
// are not counted (the usual MFU convention).
double FlopsPerToken(const ModelConfig& model, int64_t sequence_length);

// Sequences of one forward pass: the recipe's, or as many of a rank's share of the step as fit
// in 8. ranks: those that divide the step (DataRanks of tensor_split.h). Throws RecipeError when
// the step's sequences do not divide among the ranks, or a rank's share not into micro-batches.
int64_t MicroBatch(const recipe::TrainStage& stage, int64_t ranks = 1);

struct MemoryLine {
  std::string what;
  double bytes;
  bool is_tensors = true;  // Of libtorch's allocator
};

struct TrainPlan {
  int64_t parameters = 0;
  int64_t ternary_parameters = 0;
  int64_t tokens = 0;              // steps * tokens_per_step
  int64_t micro_batches = 0;       // Forward passes a step
  double flops = 0;                // Of the whole stage
  std::vector<MemoryLine> memory;  // Peak, by category
  double memory_bytes = 0;         // Their sum
  double tensor_bytes = 0;  // Of it tensors: all but the process itself and what the engine keeps
  double host_bytes = 0;    // Of it what a GPU leaves in host memory (optimizer.offload)
  double checkpoint_bytes = 0;   // On disk, one checkpoint
  double seconds = 0;            // At `gemm_flops`; 0 when that is 0
  double gemm_flops = 0;         // Of all ranks; 0: not measured
  double written_steps = 0;      // Of the stage, on text that a model writes (losses.generated)
  int64_t written_tokens = 0;    // Of a sequence then, at most: so many passes over the weights
  int64_t ranks = 1;             // Memory, micro_batches and sent are those of one of them:
  int64_t rank = 0;              // this one
  int64_t per_machine = 1;       // Ranks
  parallel::TrafficByKind sent;  // By the rank in a step; empty for one rank
};

// Which rank of how many is planned.
struct PlannedRank {
  int64_t ranks = 1;
  int64_t rank = -1;        // -1: the one that holds most
  int64_t per_machine = 0;  // 0: all are on one machine
};

// gemm_flops: the measured peak of one rank (MeasureGemmPeak), or 0 to leave the time out. Throws
// as MicroBatch.
TrainPlan PlanTraining(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                       double gemm_flops, const PlannedRank& place = {});

// Floating-point operations a second of a large fp32 GEMM, on CPUs on libtorch's threads: the best
// of a few runs over about a third of a second.
double MeasureGemmPeak(const at::Device& device = at::kCPU);

// A table for people.
std::string FormatPlan(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                       const TrainPlan& plan);

// Where a rank's tensors are.
struct RankMemory {
  int64_t sharing = 1;    // Ranks that share this machine's memory
  int64_t gpu_bytes = 0;  // Of the rank's own GPU; 0: it computes on the CPU
};

// Throws RecipeError when the plan does not fit the recipe's budget, ResourceError when it does not
// fit the rank's share of this machine's memory, or its GPU's (with what the process itself takes
// on the CPU in place of CUDA's own); the message names the largest parts and the keys that lower
// them.
void CheckBudget(const recipe::Recipe& recipe, const TrainPlan& plan,
                 const RankMemory& memory = {});

}  // namespace tern::plan
