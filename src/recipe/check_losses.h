// Rules across the keys of a train stage's losses; see check.h.
#pragma once

#include <string>
#include <vector>

#include "recipe/recipe.h"

namespace tern::recipe {

// Throws RecipeError: a loss against a teacher without one, no loss at all, features of blocks that
// are not kept. Returns warnings.
std::vector<std::string> CheckLosses(const Recipe& recipe, const TrainStage& stage);

}  // namespace tern::recipe
