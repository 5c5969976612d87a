// Where a BitLinear finds the codes of a matrix of which this process holds a part only, and where
// its gradient goes.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/ternary.h"

namespace tern::nn {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // The codes to multiply with, and the whole matrix's scale. w_NK is the parameter: the part that
  // is here.
  virtual const quant::TernaryWeight& Ternary(const at::Tensor& w_NK) = 0;
  // Takes those codes' gradient of one backward pass; false: it is the parameter's own.
  virtual bool TakeGradient(const at::Tensor& w_NK, const at::Tensor& dw_NK) = 0;
};

}  // namespace tern::nn
