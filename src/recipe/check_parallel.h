// Rules of `parallel`: which ways of sharing a training exist together, and what must divide. How
// many ranks there are is not known here.
#pragma once

#include "recipe/recipe.h"

namespace tern::recipe {

// Throws RecipeError. shape_is_known: false when the model is one that nobody has opened yet.
void CheckParallel(const Recipe& recipe, bool shape_is_known);

}  // namespace tern::recipe
