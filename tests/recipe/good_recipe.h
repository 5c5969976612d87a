// The good recipe, and that it is refused once it is changed.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <initializer_list>
#include <string>

#include "base/error.h"
#include "recipe/check.h"
#include "recipe/schema.h"
#include "tests/recipe/recipe_file.h"

namespace tern::recipe {

inline Recipe Good() { return RecipeFile(kGoodRecipe).Load().recipe; }
inline TrainStage& Train(Recipe& recipe) { return std::get<TrainStage>(recipe.stages[0]); }

inline std::string Refusal(const Recipe& recipe) {
  try {
    CheckRecipe(recipe);
  } catch (const RecipeError& error) {
    return error.what();
  }
  return "";
}

// The good recipe, changed, must be refused with all of `words`.
inline void ExpectRefused(const std::function<void(Recipe&)>& change,
                          std::initializer_list<const char*> words) {
  Recipe recipe = Good();
  change(recipe);
  const std::string message = Refusal(recipe);
  EXPECT_NE(message, "") << "accepted; wanted an error with " << *words.begin();
  for (const char* word : words) {
    EXPECT_NE(message.find(word), std::string::npos) << "no \"" << word << "\" in: " << message;
  }
}

inline void Quantize(Recipe& r, WeightQuantizer weights) {
  r.model.linear = LinearKind::kDense;
  r.stages.resize(2);
  Train(r).quantize.rules.emplace_back().name = "body";
  Train(r).quantize.rules[0].weights = weights;
}

}  // namespace tern::recipe
