// Which of the model's parameters a train stage leaves as they are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "recipe/recipe.h"

namespace tern::recipe {

// True when the shell glob matches a parameter's name without ".weight" or ".bias"
// ("model.embed_tokens"), or the last part of that ("down_proj", "*norm").
bool MatchesName(const std::string& pattern, const std::string& parameter);

// In the order of ParameterTable: true for those that stay. Beside adapters all do; else those that
// a pattern of stage.freeze matches. Throws RecipeError for a pattern that matches nothing, and
// when nothing is left to train.
std::vector<bool> FrozenParameters(const TrainStage& stage, const ModelConfig& model);

// Weights in them.
int64_t FrozenWeights(const TrainStage& stage, const ModelConfig& model);

// "2 of 38 parameters stay as they are: 28.3 M of 134.5 M weights"; empty when all are trained.
std::string DescribeFrozen(const TrainStage& stage, const ModelConfig& model);

}  // namespace tern::recipe
