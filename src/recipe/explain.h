// The schema as text: one key explained, where a misplaced key belongs, and the reference page
// docs/recipes.md.
#pragma once

#include <optional>
#include <string>

#include "recipe/load.h"

namespace tern::recipe {

// Every key path of the schema below which a key of that name stands ("train.schedule", ...), or
// empty.
std::string WhereKeyBelongs(const std::string& key);

// Default, unit, range or choices and reason of a key path such as train.schedule.peak_lr; with a
// recipe, its value and origin. Throws RecipeError with the nearest key for an unknown one.
struct KeyExplanation {
  std::string key, why, type;
  std::string unit, range;              // Empty: none
  std::optional<std::string> fallback;  // The default; nothing: the key must be given, or is a map
  bool is_map = false, required = false;
  bool may_change = false;                   // Between two starts of a run
  std::optional<std::string> value, origin;  // In the recipe that was given
};
KeyExplanation ExplainKey(const std::string& path, const LoadedRecipe* loaded);

std::string ToText(const KeyExplanation& key);
// The same as a JSON object; what does not apply is null.
std::string ToJson(const KeyExplanation& key);

// docs/recipes.md.
std::string RecipeReferenceMarkdown();

}  // namespace tern::recipe
