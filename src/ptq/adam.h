// Adam (Kingma & Ba, arXiv 1412.6980) for one tensor, by libtorch's fused step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tern::ptq {

struct AdamSettings {
  double decay1 = 0.9, decay2 = 0.999;
  double epsilon = 1e-8;
};

class Adam {
 public:
  // value: fp32, contiguous; changed in place by Step.
  Adam(const at::Tensor& value, const AdamSettings& settings);

  void Step(const at::Tensor& gradient, double learning_rate);
  const at::Tensor& value() const { return value_; }

 private:
  at::Tensor value_, mean_, mean_square_;
  AdamSettings settings_;
  int64_t steps_ = 0;
};

}  // namespace tern::ptq
