// See optimizer.h.
#include "train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"

namespace tern::train {
namespace {

bool Decays(const model::Parameter& parameter) {
  return parameter.spec.role == ParameterRole::kLinear ||
         parameter.spec.role == ParameterRole::kHead;
}

}  // namespace

double NormOf(const std::vector<double>& squares, double loss_scale) {
  double sum = 0;
  for (const double square : squares) sum += square;
  return std::sqrt(sum) / loss_scale;
}

AdamW::AdamW(const std::vector<model::Parameter>& parameters, const recipe::OptimizerConfig& config,
             const std::vector<bool>& frozen)
    : parameters_(parameters), config_(config) {
  for (const model::Parameter& parameter : parameters_) {
    const size_t index = exp_avg_.size();
    const bool trained = index >= frozen.size() || !frozen[index];
    at::TensorOptions options = parameter.value.options().requires_grad(false);
    if (config.offload) options = options.device(at::kCPU);
    for (std::vector<at::Tensor>* moments : {&exp_avg_, &exp_avg_sq_})
      moments->push_back(trained ? at::zeros(parameter.value.sizes(), options) : at::Tensor());
  }
}

std::vector<double> AdamW::GradSquares() const {
  std::vector<at::Tensor> grads;
  std::vector<size_t> index;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].value.grad().defined()) continue;
    grads.push_back(parameters_[i].value.grad());
    index.push_back(i);
  }
  std::vector<double> squares(parameters_.size(), 0.0);
  if (grads.empty()) return squares;
  // fp32 a tensor: no overflow, a fixed order. One copy from the device for all.
  const at::Tensor norms = at::stack(at::_foreach_norm(grads, 2)).cpu();
  for (size_t j = 0; j < index.size(); ++j) {
    const double norm = norms.const_data_ptr<float>()[j];
    squares[index[j]] = norm * norm;
  }
  return squares;
}

void AdamW::Step(double learning_rate, double weight_decay, double grad_norm, double loss_scale) {
  TERN_CHECK(std::isfinite(grad_norm), "gradient norm ", grad_norm);
  const at::NoGradGuard no_grad;
  const bool clips = config_.clip_norm > 0 && grad_norm > config_.clip_norm;
  const double divisor = clips ? loss_scale * grad_norm / config_.clip_norm : loss_scale;
  ++num_updates_;
  std::set<double> factors;
  for (const model::Parameter& parameter : parameters_) factors.insert(parameter.lr_factor);
  for (const double factor : factors) {
    StepGroup(/*decays=*/true, factor, {learning_rate * factor, weight_decay, divisor});
    StepGroup(/*decays=*/false, factor, {learning_rate * factor, 0.0, divisor});
  }
}

void AdamW::StepGroup(bool decays, double lr_factor, const Rates& rates) {
  Tensors values, grads, exp_avg, exp_avg_sq;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const model::Parameter& parameter = parameters_[i];
    if (Decays(parameter) != decays || parameter.lr_factor != lr_factor) continue;
    if (!parameter.value.grad().defined()) continue;
    if (exp_avg_[i].device() != parameter.value.device()) {  // Offloaded
      const at::Tensor value = parameter.value.detach().to(exp_avg_[i].device());
      Update({value}, {parameter.value.grad().to(value.device())}, {exp_avg_[i]}, {exp_avg_sq_[i]},
             rates);
      at::Tensor updated = parameter.value;  // A handle to the same tensor
      updated.copy_(value);
      continue;
    }
    values.push_back(parameter.value);
    grads.push_back(parameter.value.grad());
    exp_avg.push_back(exp_avg_[i]);
    exp_avg_sq.push_back(exp_avg_sq_[i]);
  }
  if (!values.empty()) Update(values, grads, exp_avg, exp_avg_sq, rates);
}

void AdamW::Update(const Tensors& values, const Tensors& grads, const Tensors& exp_avg,
                   const Tensors& exp_avg_sq, const Rates& rates) const {
  const Tensors steps(  // One for all: nothing writes it
      values.size(), at::full({}, static_cast<double>(num_updates_), values.front().options()));
  // On the parameters' device, as the fused step wants them.
  const at::Tensor grad_scale = at::full({}, rates.divisor, steps.front().options());
  const at::Tensor found_inf =
      at::zeros_like(grad_scale);  // The caller has looked: the norm is finite.
  at::_fused_adamw_(values, grads, exp_avg, exp_avg_sq, /*max_exp_avg_sqs=*/{}, steps,
                    rates.learning_rate, config_.beta1, config_.beta2, rates.weight_decay,
                    config_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false, grad_scale, found_inf);
}

void AdamW::ZeroGrad() {
  for (model::Parameter& parameter : parameters_) parameter.value.mutable_grad() = at::Tensor();
}

}  // namespace tern::train
