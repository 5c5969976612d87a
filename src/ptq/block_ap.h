// Block-AP of EfficientQAT (Chen et al., arXiv 2407.11062): all parameters of a layer's matrices,
// weights w, scales s and zero points z, trained with Adam against the layer's output:
//   value = (clip(round(w / s + z)) - z) * s
// Straight-through gradients. With q the code: w gets the value's gradient g where q is not
// clipped; s gets g (q - z), less g w / s where it is not; z gets -g s where it is. Two rates: of
// weights, and of scales and zero points, falling linearly to 0 (published: along a cosine to a
// twentieth). Unlike the paper's, it starts from the searched ranges of rounding to nearest, and
// what the layer is to give is the float layer's output for the quantized layers' outputs, not for
// the float ones'. In the forward pass scales and zero points are rounded as they are stored, so
// that what is trained is what is stored. The paper's second phase, scales alone end to end, is not
// here.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "ptq/block_training.h"
#include "recipe/quantize_settings.h"

namespace tern::ptq {

// w_NK: fp32, finite. start: w rounded to nearest. REQUIRES: integer codes, scales along rows.
std::unique_ptr<TrainedMatrix> BlockAp(const at::Tensor& w_NK, const quant::QuantizedWeight& start,
                                       const recipe::BlockApSettings& settings);

}  // namespace tern::ptq
