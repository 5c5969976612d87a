// See loss_scaler.h.
#include "train/loss_scaler.h"

#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/scalar_tensor.h>

#include "base/error.h"

namespace tern::train {

LossScaler::LossScaler(const recipe::LossScalingConfig& config)
    : config_(config), scale_(config.mode == recipe::ScalingMode::kOff ? 1.0 : config.initial) {}

void LossScaler::Update(bool overflow) {
  if (config_.mode != recipe::ScalingMode::kDynamic) return;
  at::Tensor scale = at::scalar_tensor(scale_, at::kFloat);
  at::Tensor good_steps = at::scalar_tensor(good_steps_, at::kInt);
  at::_amp_update_scale_(scale, good_steps, at::scalar_tensor(overflow ? 1.0 : 0.0, at::kFloat),
                         config_.growth, config_.backoff, config_.growth_interval);
  scale_ = scale.item<float>();
  good_steps_ = good_steps.item<int32_t>();
  if (scale_ < config_.floor) {
    throw NumericError(
        StrCat("the loss scale fell to ", scale_, ", below loss_scaling.floor = ", config_.floor,
               ": gradients overflow at any scale. Lower the learning rate, or train with "
               "precision: bf16"));
  }
}

nlohmann::json LossScaler::Save() const { return {{"scale", scale_}, {"good_steps", good_steps_}}; }

void LossScaler::Load(const nlohmann::json& state) {
  scale_ = state.at("scale").get<double>();
  good_steps_ = state.at("good_steps").get<int64_t>();
}

}  // namespace tern::train
