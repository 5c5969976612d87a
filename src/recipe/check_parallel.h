// Rules of `parallel`: which ways of sharing a training exist together, and what must divide. How
// many ranks there are is not known here.
#pragma once

#include <string>

#include "recipe/recipe.h"

namespace tern::recipe {

// The key of what this stage trains beside a plain model by plain cross-entropy, which data
// parallel ranks do and other ways of sharing do not; empty: nothing.
std::string TrainedByWholeModels(const TrainStage& stage);
// Whether gradients of parameters are made behind the last backward pass of a step: fake quantizers
// and adapters pass them on once a step.
bool HasLateGradients(const TrainStage& stage);

// Throws RecipeError. shape_is_known: false when the model is one that nobody has opened yet.
void CheckParallel(const Recipe& recipe, bool shape_is_known);

}  // namespace tern::recipe
