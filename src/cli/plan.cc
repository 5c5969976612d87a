// tern plan RECIPE: what a recipe will cost, before anything is loaded.
#include "plan/plan.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "cli/commands.h"
#include "cli/threads.h"
#include "job/start.h"
#include "recipe/check.h"
#include "recipe/load.h"

namespace tern::cli {

void AddPlanCommand(CLI::App& app) {
  CLI::App* plan = app.add_subcommand("plan", "Parameters, memory, tokens and time of a recipe");
  plan->footer("Example: tern plan recipes/bitnet_700m_100b.yaml");
  struct Flags {
    std::string recipe;
    std::vector<std::string> overrides;
    int64_t ranks = 1;
  };
  auto flags = std::make_shared<Flags>();
  plan->add_option("recipe", flags->recipe, "Recipe file")->required();
  plan->add_option("overrides", flags->overrides, "key=value");
  plan->add_option("--ranks", flags->ranks,
                   "Processes that share the training (docs/distributed.md)")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  plan->callback([flags] {
    const recipe::LoadedRecipe loaded =
        job::Resolved(recipe::LoadRecipe(flags->recipe, flags->overrides));
    recipe::CheckRecipe(loaded);
    SetThreads(loaded.recipe.threads);
    const double gemm_flops = plan::MeasureGemmPeak();
    for (const recipe::Stage& stage : loaded.recipe.stages) {
      if (const auto* train = std::get_if<recipe::TrainStage>(&stage)) {
        std::cout << plan::FormatPlan(
            loaded.recipe, *train,
            plan::PlanTraining(loaded.recipe, *train, gemm_flops, flags->ranks));
      }
    }
  });
}

}  // namespace tern::cli
