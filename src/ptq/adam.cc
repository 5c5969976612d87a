// See adam.h.
#include "ptq/adam.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

namespace tern::ptq {

Adam::Adam(const at::Tensor& value, const AdamSettings& settings)
    : value_(value),
      mean_(at::zeros_like(value)),
      mean_square_(at::zeros_like(value)),
      settings_(settings) {}

void Adam::Step(const at::Tensor& gradient, double learning_rate) {
  const at::NoGradGuard no_grad;
  ++steps_;
  const at::Tensor steps = at::full({}, static_cast<double>(steps_), value_.options());
  at::_fused_adamw_({value_}, {gradient.contiguous()}, {mean_}, {mean_square_},
                    /*max_exp_avg_sqs=*/{}, {steps}, learning_rate, settings_.decay1,
                    settings_.decay2, /*weight_decay=*/0.0, settings_.epsilon, /*amsgrad=*/false,
                    /*maximize=*/false);
}

}  // namespace tern::ptq
