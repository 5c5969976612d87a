// One function a stage kind: does the work and returns what the report tells
// (docs/formats/run_folder.md).
#pragma once

#include <nlohmann/json.hpp>

#include "job/context.h"
#include "recipe/recipe.h"

namespace tern::job {

// What a training asks of the machine, whose device this rank has, before anything is made. Throws
// RecipeError and ResourceError.
void CheckMachine(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                  const c10::Device& device);

// Whether every file of an export stage's result is there, in the size that it had.
bool ExportsAreThere(const Context& context, const nlohmann::json& result);

nlohmann::json RunStage(Context& context, const recipe::PrepareStage& stage);
nlohmann::json RunStage(Context& context, const recipe::TrainStage& stage);
nlohmann::json RunStage(Context& context, const recipe::EvalStage& stage);
nlohmann::json RunStage(Context& context, const recipe::ExportStage& stage);
nlohmann::json RunStage(Context& context, const recipe::VerifyStage& stage);
nlohmann::json RunStage(Context& context, const recipe::GenerateStage& stage);
nlohmann::json RunStage(Context& context, const recipe::ReportStage& stage);
nlohmann::json RunStage(Context& context, const recipe::QuantizeStage& stage);

}  // namespace tern::job
