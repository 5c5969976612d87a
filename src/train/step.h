// One optimizer step's forward and backward passes: the step's sequences are cut into
// micro-batches, gradients add up in .grad, and the loss is normalised by the targets of the whole
// step, so that cutting it otherwise changes rounding only.
#pragma once

#include <cstdint>

#include "data/batch.h"
#include "model/decoder.h"
#include "nn/bit_linear.h"
#include "recipe/recipe.h"

namespace tern::train {

nn::ComputeType ComputeTypeOf(recipe::Precision precision);

struct StepOptions {
  nn::ComputeType compute = nn::ComputeType::kFp32;
  bool checkpoint_blocks = false;
  int64_t micro_batch = 1;  // Sequences a forward pass; divides the batch
  int64_t loss_chunk_tokens = 512;
  double loss_scale = 1.0;  // Gradients come out multiplied by it
  nn::BitLinearObserver* observer = nullptr;
  double quantized_share = 1;  // Of BitLinear; see nn/bit_linear.h
};

// Mean negative log-likelihood of the step's targets (nats a token). Gradients of loss * loss_scale
// are added to .grad.
double ForwardBackward(const model::Decoder& decoder, const data::Batch& batch,
                       const StepOptions& options);

}  // namespace tern::train
