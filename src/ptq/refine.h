// Less error of a layer's outputs from codes that are there already, as GPTQ leaves them: in turns
// the best scales for the codes (least squares over all groups of a row at once), and for each code
// the best value given all others (coordinate descent: Behdin et al., QuantEase, arXiv 2309.01885).
// No step makes the error larger. GPTQ itself never looks back at a column.
#pragma once

#include "quant/weight_quantizer.h"

namespace tern::ptq {

// w_NK fp32; h_KK fp32, positive definite. Scales move only where groups lie along a row and codes
// are integers; zero points stay. Changes codes and scales of `weight`.
void Refine(const at::Tensor& w_NK, const at::Tensor& h_KK, int64_t rounds,
            quant::QuantizedWeight* weight);

}  // namespace tern::ptq
