// The schema as text: one key explained, where a misplaced key belongs, and the reference page
// docs/recipes.md.
#pragma once

#include <string>

#include "recipe/load.h"

namespace tern::recipe {

// Every key path of the schema below which a key of that name stands ("train.schedule", ...), or
// empty.
std::string WhereKeyBelongs(const std::string& key);

// Default, unit, range or choices and reason of a key path such as train.schedule.peak_lr; with a
// recipe, its value and origin. Throws RecipeError with the nearest key for an unknown one.
std::string ExplainKey(const std::string& path, const LoadedRecipe* loaded);

// docs/recipes.md.
std::string RecipeReferenceMarkdown();

}  // namespace tern::recipe
