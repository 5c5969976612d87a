// The tensors of one training step at the moment when there are most of them, from shapes: what
// nn, model, train and libtorch's autograd keep, term by term (formulas beside each in
// step_memory.cc). A step has four such moments: the loss, after the last forward layer; the
// backward pass of the last layer; that of the first; the embedding's gradient. Which one is the
// peak depends on how much of the model is gradients and how much activations.
#pragma once

#include <vector>

#include "plan/plan.h"
#include "plan/rank_share.h"

namespace tern::plan {

struct StepShape {
  const recipe::Recipe& recipe;
  const recipe::TrainStage& stage;
  int64_t rows = 0;           // Tokens of one forward pass
  int64_t micro_batches = 1;  // Forward passes of a step
  int64_t ranks = 1;          // That divide the step's sequences
  HeldByRank held;            // By this rank
};

// Everything but the values and the moments, which are always there: gradients, activations,
// workspaces. The lines of the worst moment.
std::vector<MemoryLine> StepLines(const StepShape& shape);

}  // namespace tern::plan
