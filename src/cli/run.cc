// tern run RECIPE [key=value...]: the stages of a recipe, from the first that is not done.
#include "job/run.h"

#include <CLI/CLI.hpp>
#include <filesystem>

#include "cli/commands.h"
#include "cli/threads.h"
#include "recipe/load.h"

namespace tern::cli {
namespace {

struct RunFlags {
  std::string recipe, restart_from, runs = "checkpoints";
  std::vector<std::string> overrides;
};

// scripts/fetch of the checkout that the recipe lies in.
std::string FetchScripts(const std::string& recipe) {
  namespace fs = std::filesystem;
  for (fs::path at = fs::absolute(recipe).parent_path();; at = at.parent_path()) {
    if (fs::is_directory(at / "scripts/fetch")) return (at / "scripts/fetch").string();
    if (at == at.parent_path()) return "scripts/fetch";
  }
}

}  // namespace

void AddRunCommand(CLI::App& app) {
  CLI::App* run = app.add_subcommand("run", "Run a recipe, or go on with it");
  run->footer(
      "Examples:\n  tern run recipes/quickstart.yaml\n  tern run recipes/quickstart.yaml "
      "train.steps=100 name=short\n"
      "Run it again after any interruption: it goes on to the same bits.");
  auto flags = std::make_shared<RunFlags>();
  run->add_option("recipe", flags->recipe, "Recipe file")->required();
  run->add_option("overrides", flags->overrides,
                  "key=value, such as train.steps=100 or 'data.files=[my/*.txt]'");
  run->add_option("--runs", flags->runs, "Folder of run folders")->capture_default_str();
  run->add_option("--restart-from", flags->restart_from, "Make this stage and all after it again");
  run->callback([flags] {
    const recipe::LoadedRecipe loaded = recipe::LoadRecipe(flags->recipe, flags->overrides);
    SetThreads(loaded.recipe.threads);
    job::RunRecipe(loaded, {flags->runs, flags->restart_from, FetchScripts(flags->recipe)});
  });
}

}  // namespace tern::cli
