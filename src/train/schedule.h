// Learning rate and weight decay as pure functions of the step, so that a resumed run needs no
// state for them. The two-stage schedule is BitNet b1.58's ("Training Tips, Code and FAQ"; tables
// of arXiv 2411.04965 and 2504.18415): linear from the peak to the second rate at the switch, then
// linear to the final rate, with weight decay off after the switch.
#pragma once

#include <cstdint>

#include "recipe/recipe.h"

namespace tern::train {

// Rate of the update that makes step `step` into step + 1, 0 <= step < steps. Warm-up is linear and
// reaches the schedule's value at step warmup_steps.
double LearningRate(const recipe::ScheduleConfig& schedule, int64_t step, int64_t steps);

// optimizer.weight_decay before its share of the steps is over, 0 after.
double WeightDecay(const recipe::OptimizerConfig& optimizer, int64_t step, int64_t steps);

}  // namespace tern::train
