// Loss scaling (Micikevicius et al., "Mixed precision training", arXiv 1710.03740): the loss is
// multiplied before backward so that small gradients survive the compute type, and gradients are
// divided before the update. Dynamic: a step with a non-finite gradient is skipped and the scale
// backs off; after growth_interval good steps in a row it grows, by libtorch's _amp_update_scale_,
// which never lets it become infinite.
#pragma once

#include <nlohmann/json.hpp>

#include "recipe/recipe.h"

namespace tern::train {

class LossScaler {
 public:
  explicit LossScaler(const recipe::LossScalingConfig& config);

  double scale() const { return scale_; }
  bool enabled() const { return config_.mode != recipe::ScalingMode::kOff; }

  // Tells the scaler whether the gradients of a step overflowed. Throws NumericError when a dynamic
  // scale falls below its floor: the run has diverged, or needs another precision.
  void Update(bool overflow);

  nlohmann::json Save() const;
  void Load(const nlohmann::json& state);

 private:
  recipe::LossScalingConfig config_;
  double scale_;
  int64_t good_steps_ = 0;
};

}  // namespace tern::train
