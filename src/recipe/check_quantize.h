// Rules across the keys of a train stage's fake quantizers; see check.h. What needs the names and
// shapes of layers is checked by qat/layer_rules.h.
#pragma once

#include "recipe/recipe.h"

namespace tern::recipe {

// Whether scales of a rule are learned: lsq, seq, sign.
bool LearnsScales(const QuantizeConfig& config);

// Throws RecipeError: a ladder of what are no integers, an export that would round or drop what the
// last train stage quantized.
void CheckQuantize(const Recipe& recipe, const TrainStage& stage);

}  // namespace tern::recipe
