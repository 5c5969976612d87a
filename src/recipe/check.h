// Rules across keys, checked before anything runs: batch arithmetic, schedules, precision, order of
// stages, formats against the model's shapes. Rules of one key (type, range) are the reader's;
// whether a job fits the machine is the planner's.
#pragma once

#include <string>
#include <vector>

#include "recipe/load.h"
#include "recipe/recipe.h"

namespace tern::recipe {

// Throws RecipeError for a recipe that cannot work, with the values, the rule and the way out.
// Returns warnings.
std::vector<std::string> CheckRecipe(const Recipe& recipe);

// The same; messages open with the file, line and column (or "command line") of the key that the
// rule is about.
std::vector<std::string> CheckRecipe(const LoadedRecipe& loaded);

}  // namespace tern::recipe
