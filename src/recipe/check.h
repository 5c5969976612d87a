// Rules across keys, checked before anything runs.
#pragma once

#include <string>
#include <vector>

#include "recipe/recipe.h"

namespace tern::recipe {

// Throws RecipeError for a recipe that cannot work, with the values, the rule and the way out. Returns warnings.
std::vector<std::string> CheckRecipe(const Recipe& recipe);

}  // namespace tern::recipe
