// Scales between the columns of a layer's inputs and of its weights, W diag(s) and X diag(1/s),
// that change nothing in floats and let both quantize better: of weight-only formats AWQ (Lin et
// al., arXiv 2306.00978: columns with large inputs get finer steps), of formats that quantize
// activations SmoothQuant (Xiao et al., arXiv 2211.10438: outliers move from the inputs to the
// weights). Both are a search over one exponent with the error of the outputs as its aim; that of s
// = 1 is among those tried. 1/s goes into whatever made the inputs: a norm's gain, or the rows of
// up_proj.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "quant/weight_quantizer.h"

namespace tern::ptq {

struct ChannelScales {
  at::Tensor s_K;                       // All 1 when nothing is better
  double exponent = 0;                  // Of the inputs' size in s
  double error = 0, error_without = 0;  // Lost part of the outputs' power, rounded to nearest
};

// weights: [N, K] each, of the matrices that share the inputs. h_KK: mean of 2 x x^T.
ChannelScales FindAwqScales(const std::vector<at::Tensor>& weights, const at::Tensor& h_KK,
                            const quant::WeightFormat& format, const quant::RangeSearch& range);

// x_MK: a sample of the inputs, quantized with a scale a row in the weights' element type.
ChannelScales FindSmoothScales(const std::vector<at::Tensor>& weights, const at::Tensor& x_MK,
                               const quant::WeightFormat& format, const quant::RangeSearch& range);

}  // namespace tern::ptq
