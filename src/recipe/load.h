// From a recipe file and command-line overrides to a typed recipe with the origin of each value.
// The configs folder that `use:` reads is the nearest `configs` beside or above the recipe file, or
// $TERN_CONFIGS.
#pragma once

#include <string>
#include <vector>

#include "recipe/read_visitor.h"
#include "recipe/recipe.h"

namespace tern::recipe {

struct LoadedRecipe {
  Recipe recipe;
  Origins origins;
  std::string path;
};

// overrides: "train.steps=100", "data.files=[my/*.txt]", "name=mine"; stages are named by id.
// Throws RecipeError (with file:line:column, or "command line") and InputError when the file cannot
// be read. Semantic rules across keys are in check.h.
LoadedRecipe LoadRecipe(const std::string& path, const std::vector<std::string>& overrides);

// The whole recipe as YAML, every key with its value and, as a comment, its origin. Loading it
// gives an equal recipe.
std::string ResolvedYaml(const LoadedRecipe& loaded);

}  // namespace tern::recipe
