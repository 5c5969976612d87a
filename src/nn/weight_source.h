// Where a BitLinear finds the codes of a matrix of which this process holds some rows only, and
// where its gradient goes.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/ternary.h"

namespace tern::nn {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // The whole matrix's codes and scale. w_NK is the parameter: the rows that are here.
  virtual const quant::TernaryWeight& Ternary(const at::Tensor& w_NK) = 0;
  // Takes the whole matrix's gradient of one backward pass.
  virtual void AddGradient(const at::Tensor& w_NK, const at::Tensor& dw_NK) = 0;
};

}  // namespace tern::nn
