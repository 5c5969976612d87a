// See optimizer.h.
#include "train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace tern::train {
namespace {

bool Decays(const model::Parameter& parameter) {
  return parameter.spec.role == ParameterRole::kLinear ||
         parameter.spec.role == ParameterRole::kHead;
}

}  // namespace

AdamW::AdamW(const std::vector<model::Parameter>& parameters, const recipe::OptimizerConfig& config)
    : parameters_(parameters), config_(config) {
  for (const model::Parameter& parameter : parameters_) {
    exp_avg_.push_back(at::zeros_like(parameter.value).detach());
    exp_avg_sq_.push_back(at::zeros_like(parameter.value).detach());
  }
}

double AdamW::GradNorm(double loss_scale) const {
  std::vector<at::Tensor> grads;
  for (const model::Parameter& parameter : parameters_) {
    if (parameter.value.grad().defined()) grads.push_back(parameter.value.grad());
  }
  double sum = 0;  // fp64 over one fp32 norm a tensor: a fixed order and no overflow.
  for (const at::Tensor& norm : at::_foreach_norm(grads, 2)) {
    const double value = norm.item<float>();
    sum += value * value;
  }
  return std::sqrt(sum) / loss_scale;
}

void AdamW::Step(double learning_rate, double weight_decay, double grad_norm, double loss_scale) {
  TERN_CHECK(std::isfinite(grad_norm), "gradient norm ", grad_norm);
  const at::NoGradGuard no_grad;
  const bool clips = config_.clip_norm > 0 && grad_norm > config_.clip_norm;
  const double divisor = clips ? loss_scale * grad_norm / config_.clip_norm : loss_scale;
  const at::Tensor grad_scale = at::full({}, divisor, at::kFloat);
  ++num_updates_;
  StepGroup(/*decays=*/true, learning_rate, weight_decay, grad_scale);
  StepGroup(/*decays=*/false, learning_rate, 0.0, grad_scale);
}

void AdamW::StepGroup(bool decays, double learning_rate, double weight_decay,
                      const at::Tensor& grad_scale) {
  std::vector<at::Tensor> values, grads, exp_avg, exp_avg_sq, steps;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const model::Parameter& parameter = parameters_[i];
    if (Decays(parameter) != decays || !parameter.value.grad().defined()) continue;
    values.push_back(parameter.value);
    grads.push_back(parameter.value.grad());
    exp_avg.push_back(exp_avg_[i]);
    exp_avg_sq.push_back(exp_avg_sq_[i]);
    steps.push_back(at::full({}, static_cast<double>(num_updates_), at::kFloat));
  }
  if (values.empty()) return;
  const at::Tensor found_inf =
      at::zeros({}, at::kFloat);  // The caller has looked: the norm is finite.
  at::_fused_adamw_(values, grads, exp_avg, exp_avg_sq, /*max_exp_avg_sqs=*/{}, steps,
                    learning_rate, config_.beta1, config_.beta2, weight_decay, config_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false, grad_scale, found_inf);
}

void AdamW::ZeroGrad() {
  for (model::Parameter& parameter : parameters_) parameter.value.mutable_grad() = at::Tensor();
}

}  // namespace tern::train
