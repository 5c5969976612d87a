// Runs a recipe: its stages in order, each at most once. A stage that is done is skipped; one that
// was interrupted goes on. Run folder (docs/formats/run_folder.md): recipe.resolved.yaml,
// journal.jsonl, metrics.jsonl, stages/<id>.json (what a stage was made from and what came of it),
// tokenizer.model, data.tokens.h5, <train id>/step-*, exports/, report.md.
#pragma once

#include <string>

#include "parallel/group.h"
#include "recipe/load.h"

namespace tern::job {

struct RunOptions {
  std::string runs_folder = "checkpoints";
  std::string restart_from;   // Id of a stage: it and all after it are made again; empty: go on
  std::string fetch_scripts;  // Folder of the scripts that data.fetch names
  // Not null: all ranks call RunRecipe together. They share trainings and evaluations; everything
  // else, and every file but the parts of checkpoints, is the root's.
  parallel::Group* group = nullptr;
  // This rank's (parallel/gpu.h): of the train stages that may use a GPU.
  c10::Device device = c10::kCPU;
};

// What the train stages ask for together: "cuda" when one needs it, "auto" when one would take it,
// else "cpu".
std::string WantedDevice(const recipe::Recipe& recipe);

// Throws RecipeError when a finished or begun stage was made from other keys (naming them),
// ResourceError when another process runs in the same folder, and whatever a stage throws. Prints
// the plan and the report on stderr; a stage's result (generated text) on stdout.
void RunRecipe(const recipe::LoadedRecipe& given, const RunOptions& options);

}  // namespace tern::job
