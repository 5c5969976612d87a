// tern run RECIPE [key=value...]: the stages of a recipe, from the first that is not done.
#include "job/run.h"

#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/sha256.h"
#include "cli/commands.h"
#include "cli/ranks.h"
#include "recipe/load.h"
#include "recipe/schema.h"

namespace tern::cli {
namespace {

struct RunFlags {
  std::string recipe, restart_from, runs = "checkpoints";
  std::vector<std::string> overrides;
  int64_t ranks = 0;
};

// The command line of one rank.
std::vector<std::string> RankArguments(const RunFlags& flags) {
  std::vector<std::string> arguments = {"run", "--runs", flags.runs};
  if (!flags.restart_from.empty()) {
    arguments.insert(arguments.end(), {"--restart-from", flags.restart_from});
  }
  arguments.insert(arguments.end(), {"--", flags.recipe});
  arguments.insert(arguments.end(), flags.overrides.begin(), flags.overrides.end());
  return arguments;
}

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
      "  tern run recipes/quickstart.yaml --ranks 2\n  torchrun --no-python --nproc-per-node 8 "
      "tern "
      "run RECIPE\n"
      "Run it again after any interruption: it goes on to the same bits.");
  auto flags = std::make_shared<RunFlags>();
  run->add_option("recipe", flags->recipe, "Recipe file")->required();
  run->add_option("overrides", flags->overrides,
                  "key=value, such as train.steps=100 or 'data.files=[my/*.txt]'");
  run->add_option("--runs", flags->runs, "Folder of run folders")->capture_default_str();
  run->add_option("--restart-from", flags->restart_from, "Make this stage and all after it again");
  run->add_option("--ranks", flags->ranks,
                  "Processes that share the work on this machine; several machines: torchrun, srun "
                  "or mpirun (docs/distributed.md)")
      ->check(CLI::Range(1, 4096));
  run->callback([flags] {
    const recipe::LoadedRecipe loaded = recipe::LoadRecipe(flags->recipe, flags->overrides);
    if (StartRanks(flags->ranks, RankArguments(*flags))) return;
    const RankedJob ranked = {loaded.recipe.parallel,
                              loaded.recipe.threads,
                              {{"recipe", Sha256Hex(recipe::ResolvedYaml(loaded))}},
                              job::WantedDevice(loaded.recipe)};
    RunAsRank(ranked, [&](parallel::Group* group, const c10::Device& device) {
      job::RunRecipe(
          loaded, {flags->runs, flags->restart_from, FetchScripts(flags->recipe), group, device});
    });
  });
}

}  // namespace tern::cli
