// The scales of a matrix whose values are codes times scales already, found from the values alone,
// so that training can go on from what GPTQ, AWQ or another program made, whatever its file.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "quant/weight_quantizer.h"

namespace tern::quant {

// Scales and zero points with which QuantizeWith changes no value: of each group the largest scale
// of the format's type of which all its values are multiples within the codes' range. Nothing when
// a group has none. w_NK: fp32, contiguous. REQUIRES: integer codes of bf16 scales along rows.
std::optional<BlockScales> ScalesOnGrid(const at::Tensor& w_NK, const WeightFormat& format);

}  // namespace tern::quant
