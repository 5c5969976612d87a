// Distillation of scales after quantization: codes and zero points stay, the scales of the groups
// are trained with Adam (adam.h) so that a layer's output is that of the
// float layer; no labels. What is trained is the logarithm of each scale's change, so that steps
// are parts of a scale; in the forward pass scales are rounded to the format's type, with a
// straight-through gradient.
#pragma once

#include <memory>

#include "ptq/block_training.h"

namespace tern::ptq {

// REQUIRES: integer codes, scales along rows.
std::unique_ptr<TrainedMatrix> TrainScales(const quant::QuantizedWeight& start);

}  // namespace tern::ptq
