// One optimizer step's forward and backward passes: the step's sequences are cut into
// micro-batches, gradients add up in .grad, and the loss is normalised by the targets of the whole
// step, so that cutting it otherwise changes rounding only.
#pragma once

#include <cstdint>

#include "data/batch.h"
#include "model/decoder.h"
#include "nn/bit_linear.h"
#include "recipe/recipe.h"
#include "train/sharding.h"

namespace tern::train {

nn::ComputeType ComputeTypeOf(recipe::Precision precision);
// How batches are cut; samples are cut by their source (data/packed_samples.h), then as documents.
data::Packing PackingOf(recipe::Packing packing);

struct StepOptions {
  nn::ComputeType compute = nn::ComputeType::kFp32;
  bool checkpoint_blocks = false;
  int64_t micro_batch = 1;  // Sequences a forward pass; divides the batch
  int64_t loss_chunk_tokens = 512;
  double loss_scale = 1.0;  // Gradients come out multiplied by it
  nn::BitLinearObserver* observer = nullptr;
  double quantized_share = 1;  // Of BitLinear; see nn/bit_linear.h
  // This process is `rank` of `ranks` along the data axis: it takes sequences [rank, rank + 1) * B
  // / ranks of the step's B. REQUIRES: ranks * micro_batch divides B.
  int rank = 0, ranks = 1;
  Sharding* sharding = nullptr;  // Not null: gradients go where it wants them
  // Gradients of the step are whole after its passes; else the caller makes the last of them and
  // calls Sharding::FinishGradients.
  bool finishes_gradients = true;
};

// Negative log-likelihood of this process's targets, divided by the number of the whole step's
// (nats a token): the sum over the ranks is the step's loss. Gradients of loss * loss_scale are
// added to .grad. Throws InputError when no token of the step has a label.
double ForwardBackward(const model::Decoder& decoder, const data::Batch& batch,
                       const StepOptions& options);

}  // namespace tern::train
