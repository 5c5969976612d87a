// tern plan RECIPE: what a recipe will cost, before anything is loaded.
#include "plan/plan.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "cli/commands.h"
#include "cli/threads.h"
#include "job/start.h"
#include "plan/gpu_bound.h"
#include "recipe/check.h"
#include "recipe/load.h"

namespace tern::cli {

void AddPlanCommand(CLI::App& app) {
  CLI::App* plan = app.add_subcommand("plan", "Parameters, memory, tokens and time of a recipe");
  plan->footer(
      "Examples: tern plan recipes/bitnet_700m_100b.yaml\n"
      "          tern plan recipes/bitnet_700m_100b.yaml --ranks 64 --device h100");
  struct Flags {
    std::string recipe;
    std::vector<std::string> overrides;
    int64_t ranks = 1;
    std::string device;
  };
  auto flags = std::make_shared<Flags>();
  plan->add_option("recipe", flags->recipe, "Recipe file")->required();
  plan->add_option("overrides", flags->overrides, "key=value");
  plan->add_option("--ranks", flags->ranks,
                   "Processes that share the training (docs/distributed.md)")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  plan->add_option("--device", flags->device,
                   "Also what it takes at least on such GPUs: a100, h100, rtx4090");
  plan->callback([flags] {
    const recipe::LoadedRecipe loaded =
        job::Resolved(recipe::LoadRecipe(flags->recipe, flags->overrides));
    recipe::CheckRecipe(loaded);
    SetThreads(loaded.recipe.threads);
    const plan::GpuPeaks* gpu = flags->device.empty() ? nullptr : &plan::GpuByName(flags->device);
    const double gemm_flops = plan::MeasureGemmPeak();
    for (const recipe::Stage& stage : loaded.recipe.stages) {
      if (const auto* train = std::get_if<recipe::TrainStage>(&stage)) {
        const plan::TrainPlan planned =
            plan::PlanTraining(loaded.recipe, *train, gemm_flops, flags->ranks);
        std::cout << plan::FormatPlan(loaded.recipe, *train, planned);
        if (gpu != nullptr)
          std::cout << plan::FormatBound(planned, *gpu,
                                         plan::BoundOnGpus(planned, train->steps, *gpu));
      }
    }
  });
}

}  // namespace tern::cli
