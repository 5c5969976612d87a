// Where a train stage can run: on how many ranks, on which device.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "recipe/recipe.h"

namespace tern::train {

// Why this stage cannot be trained by several ranks (key, reason and way out); empty when it can.
std::string WhyNotByRanks(const recipe::Recipe& recipe, const recipe::TrainStage& stage);

// Why this stage cannot be trained on a GPU (key and reason); empty when it can.
std::string WhyNotOnGpu(const recipe::Recipe& recipe, const recipe::TrainStage& stage);
// The rank's device, or the CPU where the stage says so or cannot be trained on a GPU.
at::Device DeviceOf(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                    const at::Device& of_rank);

}  // namespace tern::train
