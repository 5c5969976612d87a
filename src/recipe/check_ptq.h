// Rules of a quantize stage across keys and stages (check.h). What the options want of each other
// and of the model's shape is ptq/check_options.h's.
#pragma once

#include "recipe/recipe.h"

namespace tern::recipe {

// Throws RecipeError: nothing to quantize before the stage, or weights that are quantized by then.
void CheckQuantizeStage(const Recipe& recipe, const QuantizeStage& stage);

}  // namespace tern::recipe
