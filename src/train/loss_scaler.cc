// See loss_scaler.h.
#include "train/loss_scaler.h"

#include "base/error.h"

namespace tern::train {

LossScaler::LossScaler(const recipe::LossScalingConfig& config)
    : config_(config), scale_(config.mode == recipe::ScalingMode::kOff ? 1.0 : config.initial) {}

void LossScaler::Update(bool overflow) {
  if (config_.mode != recipe::ScalingMode::kDynamic) return;
  if (overflow) {
    scale_ *= config_.backoff;
    good_steps_ = 0;
    if (scale_ < config_.floor) {
      throw NumericError(
          StrCat("the loss scale fell to ", scale_, ", below loss_scaling.floor = ", config_.floor,
                 ": gradients overflow at any scale. Lower the learning rate, or train with "
                 "precision: bf16"));
    }
    return;
  }
  if (++good_steps_ == config_.growth_interval) {
    scale_ *= config_.growth;
    good_steps_ = 0;
  }
}

nlohmann::json LossScaler::Save() const { return {{"scale", scale_}, {"good_steps", good_steps_}}; }

void LossScaler::Load(const nlohmann::json& state) {
  scale_ = state.at("scale").get<double>();
  good_steps_ = state.at("good_steps").get<int64_t>();
}

}  // namespace tern::train
