// GPTQ (Frantar et al., arXiv 2210.17323): rounds a matrix column by column and lets the columns to
// come make good the error that the inputs of the layer would see. Blocks of 128 columns; the
// columns with the largest inputs first, while groups stay those of the file ("static groups");
// or in the file's order, each group's scale found from its updated weights. Inputs that are never
// used (dead columns) become 0. When the Hessian is not positive definite the damping grows until
// it is, and the result says so.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "quant/weight_quantizer.h"
#include "recipe/quantize_settings.h"

namespace tern::ptq {

struct GptqOptions : recipe::GptqSettings {
  quant::RangeSearch range;  // Squared errors are weighted with the diagonal
};

struct GptqResult {
  quant::QuantizedWeight weight;
  double damping = 0;  // That was needed
  int64_t dead_columns = 0;
  std::string fallback;  // Not empty: rounded to nearest, and why
};

// w_NK fp32; h_KK fp32, the mean of 2 x x^T over the calibration tokens (any factor). Throws as
// quant::FindScales.
GptqResult Gptq(const at::Tensor& w_NK, const at::Tensor& h_KK, const quant::WeightFormat& format,
                const GptqOptions& options);

// tr(E H E^T) / tr(W H W^T), E = W - V: the part of the output's power that is lost. 0 when the
// output is 0.
double OutputError(const at::Tensor& w_NK, const at::Tensor& v_NK, const at::Tensor& h_KK);

}  // namespace tern::ptq
