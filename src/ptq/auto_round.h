// AutoRound (Cheng et al., "Optimize Weight Rounding via Signed Gradient Descent for the
// Quantization of LLMs", arXiv 2309.05516): what is added to each weight before it is rounded, V
// within half a step, and how much of the range of a group the codes cover, learned against the
// layer's output:
//   scale = amax * alpha / largest code, or with zero points (max * alpha - min * beta) / levels
//   zero  = round(least code - min * beta / scale)
//   value = (round(w / scale + zero + V) - zero) * scale, within the codes
// 0 <= alpha, beta <= 1, straight-through gradients, signed steps of 1 / steps, falling linearly to
// 0. Unlike the paper's, it starts from the searched ranges of rounding to nearest, and alpha and
// beta from their part of the whole. Codes and scales are those of src/quant, so that what is
// trained is what is stored.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "ptq/block_training.h"

namespace tern::ptq {

// w_NK: fp32, finite. start: w rounded to nearest. REQUIRES: integer codes, scales along rows.
std::unique_ptr<TrainedMatrix> AutoRound(const at::Tensor& w_NK,
                                         const quant::QuantizedWeight& start, int64_t steps);

}  // namespace tern::ptq
