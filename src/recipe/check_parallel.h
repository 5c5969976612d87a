// Rules of `parallel`: which ways of sharing a training exist together, and what must divide. How
// many ranks there are is not known here.
#pragma once

#include <string>

#include "recipe/recipe.h"

namespace tern::recipe {

// The key of what only one process trains in this stage; empty: nothing.
std::string TrainedByOneProcess(const TrainStage& stage);

// Throws RecipeError. shape_is_known: false when the model is one that nobody has opened yet.
void CheckParallel(const Recipe& recipe, bool shape_is_known);

}  // namespace tern::recipe
