// The quantize stage: tern quantize (src/ptq) of what the recipe trains, or of model.from, with the
// stage's keys as its options.
#pragma once

#include <string>
#include <vector>

#include "job/context.h"
#include "ptq/verify.h"
#include "recipe/load.h"

namespace tern::job {

// What the options ask of the model and of each other, before anything is made. Throws RecipeError.
void CheckQuantizeStages(const recipe::LoadedRecipe& loaded);

// exports/NAME-TO, of a stage with an id of its own exports/NAME-ID; .gguf behind those of files.
std::string QuantizedPath(const Context& context, const recipe::QuantizeStage& stage);

// All that the stage makes, finished or not.
std::vector<std::string> QuantizedPaths(const Context& context, const recipe::QuantizeStage& stage);

// Removes it.
void ForgetQuantized(const Context& context, const recipe::QuantizeStage& stage);

// tern verify of what the stage made, against what it was made of, on `tokens`.
ptq::VerifyReport VerifyQuantized(const Context& context, const recipe::QuantizeStage& stage,
                                  const std::vector<int32_t>& tokens);

}  // namespace tern::job
