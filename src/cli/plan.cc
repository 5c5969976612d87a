// tern plan RECIPE: what a recipe will cost, before anything is loaded.
#include "plan/plan.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/threads.h"
#include "job/start.h"
#include "parallel/group.h"
#include "plan/gpu_bound.h"
#include "recipe/check.h"
#include "recipe/load.h"
#include "train/dry_run.h"

namespace tern::cli {

namespace {

struct PlanFlags {
  std::string recipe;
  std::vector<std::string> overrides;
  int64_t ranks = 1;
  int64_t rank = -1;  // The one that holds most
  std::string device;
  bool dry_run = false;
};

void CheckFlags(const PlanFlags& flags) {
  if (flags.rank >= flags.ranks) {
    throw UsageError(StrCat("--rank: found ", flags.rank, ", and there are ", flags.ranks,
                            " ranks; want one from 0 to ", flags.ranks - 1));
  }
  if (flags.dry_run && flags.ranks == 1) {
    throw UsageError(
        "--dry-run: found one rank, which sends nothing; want --ranks N with N above 1");
  }
}

// The training code as one rank of many, the others faked; the plan's traffic is then what it sent.
void PrintDryRun(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                 plan::TrainPlan* planned) {
  parallel::Topology topology;
  topology.rank = static_cast<int>(planned->rank);
  topology.world = static_cast<int>(planned->ranks);
  topology.local_world = static_cast<int>(planned->per_machine);
  topology.local_rank = topology.rank % topology.local_world;
  const std::unique_ptr<parallel::Group> group = parallel::Group::Fake(topology);
  const train::DryRunResult result = train::DryRun(recipe, stage, *group);
  std::cout << train::FormatDryRun(*planned, result);
  // Products shared by ranks (parallel.tensor) send by the token, and these were few.
  if (recipe.parallel.tensor == 1) planned->sent = result.traffic;
}

void RunPlan(const PlanFlags& flags) {
  CheckFlags(flags);
  const recipe::LoadedRecipe loaded =
      job::Resolved(recipe::LoadRecipe(flags.recipe, flags.overrides));
  recipe::CheckRecipe(loaded);
  SetThreads(loaded.recipe.threads);
  const plan::GpuPeaks* gpu = flags.device.empty() ? nullptr : &plan::GpuByName(flags.device);
  const plan::PlannedRank place = {flags.ranks, flags.rank, gpu == nullptr ? 0 : gpu->per_machine};
  const double gemm_flops = plan::MeasureGemmPeak();
  for (const recipe::Stage& stage : loaded.recipe.stages) {
    const auto* train = std::get_if<recipe::TrainStage>(&stage);
    if (train == nullptr) continue;
    plan::TrainPlan planned = plan::PlanTraining(loaded.recipe, *train, gemm_flops, place);
    std::cout << plan::FormatPlan(loaded.recipe, *train, planned) << std::flush;
    if (flags.dry_run) PrintDryRun(loaded.recipe, *train, &planned);
    if (gpu != nullptr)
      std::cout << plan::FormatBound(planned, *gpu, plan::BoundOnGpus(planned, train->steps, *gpu));
  }
}

}  // namespace

void AddPlanCommand(CLI::App& app) {
  CLI::App* plan = app.add_subcommand("plan", "Parameters, memory, tokens and time of a recipe");
  plan->footer(
      "Examples: tern plan recipes/bitnet_700m_100b.yaml\n"
      "          tern plan recipes/bitnet_700m_100b.yaml --ranks 64 --device h100\n"
      "          tern plan recipes/bitnet_700m_100b.yaml parallel.shard=zero3 --ranks 64 --device "
      "h100 --dry-run");
  auto flags = std::make_shared<PlanFlags>();
  plan->add_option("recipe", flags->recipe, "Recipe file")->required();
  plan->add_option("overrides", flags->overrides, "key=value");
  plan->add_option("--ranks", flags->ranks,
                   "Processes that share the training (docs/distributed.md)")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  plan->add_option("--rank", flags->rank, "Which of them; without it, the one that holds most")
      ->check(CLI::Range(0, (1 << 20) - 1));
  plan->add_option("--device", flags->device,
                   "Also what it takes at least on such GPUs: a100, h100, rtx4090");
  plan->add_flag("--dry-run", flags->dry_run,
                 "Also run two tiny steps of the training code as that rank, the others faked, and "
                 "count what it sends and keeps");
  plan->callback([flags] { RunPlan(*flags); });
}

}  // namespace tern::cli
