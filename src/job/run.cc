// See run.h.
#include "job/run.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/stop_signal.h"
#include "checkpoint/checkpoint.h"
#include "job/context.h"
#include "job/quantize_stage.h"
#include "job/report.h"
#include "job/stages.h"
#include "job/start.h"
#include "plan/plan.h"
#include "recipe/check.h"
#include "recipe/fingerprint.h"
#include "recipe/schema.h"
#include "train/placement.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;

// The recipe's stages with the prepare stage that a train stage implies.
std::vector<recipe::Stage> StagesOf(const recipe::Recipe& recipe) {
  std::vector<recipe::Stage> stages = recipe.stages;
  if (!std::holds_alternative<recipe::PrepareStage>(stages.front())) {
    stages.insert(stages.begin(), recipe::PrepareStage{});
  }
  return stages;
}

class StageRecord {
 public:
  StageRecord(const Context& context, const recipe::Stage& stage)
      : path_(context.Path(StrCat("stages/", recipe::IdOf(stage), ".json"))),
        fingerprint_(recipe::FingerprintOf(context.recipe(), stage)) {
    if (!fs::exists(path_)) return;
    try {
      stored_ = nlohmann::json::parse(ReadFile(path_));
      nlohmann::json& before = stored_.at("fingerprint");
      before = recipe::WithNewKeys(before.get<recipe::Fingerprint>(), fingerprint_, stage);
    } catch (const nlohmann::json::exception& error) {
      throw FormatError(StrCat(path_, ": ", error.what(), "; delete it to make the stage again"));
    }
  }

  bool done() const { return stored_.is_object() && stored_.value("status", "") == "done"; }
  const nlohmann::json& result() const { return stored_.at("result"); }  // REQUIRES: done
  // A train stage whose recipe now asks for more steps.
  bool grows() const {
    return stored_.is_object() &&
           stored_.at("fingerprint").get<recipe::Fingerprint>() != fingerprint_;
  }

  // Throws RecipeError when what the stage has made so far was made with other keys. A stage that
  // failed before it made anything may be corrected; only a training keeps parts of its work.
  void CheckUnchanged(const std::string& id, bool has_checkpoints) const {
    if (!done() && !has_checkpoints) return;
    const auto differences =
        recipe::Differences(stored_.at("fingerprint").get<recipe::Fingerprint>(), fingerprint_);
    if (differences.empty()) return;
    std::string list;
    for (const std::string& difference : differences) list += "\n  " + difference;
    throw RecipeError(StrCat("the stage ", id, " of this run was made from another recipe:", list,
                             "\nMake it again with --restart-from ", id,
                             ", or give this run another name (name=...)"));
  }

  void Begin() const { Write("begun", nullptr); }
  void End(const nlohmann::json& result) const { Write("done", result); }

 private:
  void Write(const char* status, const nlohmann::json& result) const {
    WriteFileAtomically(
        path_,
        nlohmann::json{{"status", status}, {"fingerprint", fingerprint_}, {"result", result}}.dump(
            2));
  }

  std::string path_;
  recipe::Fingerprint fingerprint_;
  nlohmann::json stored_;
};

// Everything in the exports folder that no quantize stage has made.
void ForgetExports(const Context& context) {
  std::vector<std::string> kept;
  for (const recipe::Stage& stage : context.recipe().stages) {
    if (const auto* quantize = std::get_if<recipe::QuantizeStage>(&stage)) {
      const std::vector<std::string> made = QuantizedPaths(context, *quantize);
      kept.insert(kept.end(), made.begin(), made.end());
    }
  }
  if (!fs::exists(context.ExportsFolder())) return;
  std::vector<std::string> exported;
  for (const fs::directory_entry& entry : fs::directory_iterator(context.ExportsFolder())) {
    const std::string path = entry.path().string();
    if (std::find(kept.begin(), kept.end(), path) == kept.end()) exported.push_back(path);
  }
  for (const std::string& path : exported) fs::remove_all(path);
}

// Forgets a stage and what it made.
void Forget(const Context& context, const recipe::Stage& stage) {
  const std::string& id = recipe::IdOf(stage);
  fs::remove(context.Path(StrCat("stages/", id, ".json")));
  if (std::holds_alternative<recipe::TrainStage>(stage)) fs::remove_all(context.Path(id));
  if (std::holds_alternative<recipe::ExportStage>(stage)) ForgetExports(context);
  if (const auto* quantize = std::get_if<recipe::QuantizeStage>(&stage))
    ForgetQuantized(context, *quantize);
}

void Restart(const Context& context, const std::vector<recipe::Stage>& stages,
             const std::string& from) {
  bool found = false;
  for (const recipe::Stage& stage : stages) {
    found = found || recipe::IdOf(stage) == from;
    if (found) Forget(context, stage);
  }
  if (!found)
    throw UsageError(StrCat("--restart-from ", from, ": the recipe has no stage of that id"));
}

// Stages that all ranks take part in.
bool IsShared(const recipe::Stage& stage) {
  return std::holds_alternative<recipe::TrainStage>(stage) ||
         std::holds_alternative<recipe::EvalStage>(stage);
}

void RunOne(Context& context, const recipe::Stage& stage, const StageRecord& record) {
  const std::string& id = recipe::IdOf(stage);
  OnRoot(context.group, [&] {
    record.Begin();
    context.journal.Append("stage_begun", {{"stage", id}, {"ranks", context.ranks()}});
  });
  LogInfo("stage ", id);
  nlohmann::json result;
  const auto run = [&] {
    result = std::visit([&](const auto& s) { return RunStage(context, s); }, stage);
  };
  IsShared(stage) ? run() : OnRoot(context.group, run);
  OnRoot(context.group, [&] {
    record.End(result);
    context.journal.Append("stage_ended", {{"stage", id}, {"result", result}});
  });
}

// What must hold before anything is made, and is the same for all ranks.
void CheckJob(const recipe::LoadedRecipe& loaded, parallel::Group* group,
              const c10::Device& device) {
  const int ranks = group == nullptr ? 1 : group->size();
  for (const std::string& warning : recipe::CheckRecipe(loaded)) LogWarn(warning);
  CheckQuantizeStages(loaded);
  CheckPatterns(loaded.recipe);
  for (const recipe::Stage& stage : loaded.recipe.stages) {
    if (const auto* train = std::get_if<recipe::TrainStage>(&stage)) {
      CheckMachine(loaded.recipe, *train, device);
      const std::string why = ranks > 1 ? tern::train::WhyNotByRanks(loaded.recipe, *train) : "";
      if (!why.empty()) throw RecipeError(why);
      plan::CheckBudget(loaded.recipe,
                        plan::PlanTraining(loaded.recipe, *train, 0, {.ranks = ranks}),
                        MemoryOf(group, device));
    }
  }
}

// Every rank must see the root's run folder: a folder of the same name on a machine's own disk
// would do until a rank misses a file, with words that are about the file. A name that nobody has
// looked for before, so that no network file system has an old answer. Throws UsageError on all
// ranks.
void CheckRanksSeeFolder(const std::string& folder, parallel::Group* group) {
  if (group == nullptr) return;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::string mine = StrCat("seen_by_ranks.tmp.", std::abs(now.count()));
  const std::string path = StrCat(folder, "/", group->FromRoot(mine));
  group->OnRoot([&] { WriteFileAtomically(path, ""); });
  std::error_code error;
  const bool sees = fs::exists(path, error);
  const auto all = group->GatherTexts(sees ? "" : fs::absolute(folder).string());
  group->OnRoot([&] { fs::remove(path); });
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].empty()) continue;
    throw UsageError(
        StrCat("rank ", rank, " does not see rank 0's run folder: ", all[rank],
               " is another folder there, or none; put it on a file system that all "
               "machines share (--runs FOLDER) and start all ranks in the same folder"));
  }
}

// Restarts what is asked for and refuses what was made from another recipe.
void PrepareFolder(const Context& context, const std::vector<recipe::Stage>& stages,
                   const RunOptions& options) {
  if (!options.restart_from.empty()) Restart(context, stages, options.restart_from);
  std::string grown;  // A train stage that goes on
  for (const recipe::Stage& stage : stages) {
    const std::string& id = recipe::IdOf(stage);
    const bool trains = std::holds_alternative<recipe::TrainStage>(stage);
    if (trains) checkpoint::RemoveLeftovers(context.Path(id));
    const bool has_checkpoints =
        trains && fs::exists(context.Path(id)) && !fs::is_empty(context.Path(id));
    const StageRecord record(context, stage);
    record.CheckUnchanged(id, has_checkpoints);
    if (has_checkpoints && !grown.empty()) {
      throw RecipeError(StrCat(grown, ".steps: found more than before, and ", id,
                               " has begun from what ", grown, " had made; train ", id,
                               " again, too (--restart-from ", id,
                               "), or give this run another name (name=...)"));
    }
    if (trains && record.grows()) grown = id;
  }
  WriteFileAtomically(context.Path("recipe.resolved.yaml"), context.resolved_yaml);
}

}  // namespace

std::string WantedDevice(const recipe::Recipe& recipe) {
  std::string wanted = "cpu";
  for (const recipe::Stage& stage : recipe.stages) {
    const auto* train = std::get_if<recipe::TrainStage>(&stage);
    if (train == nullptr || train->device == "cpu") continue;
    if (train->device == "auto" && !tern::train::WhyNotOnGpu(recipe, *train).empty()) continue;
    if (wanted != "cuda") wanted = train->device;
  }
  return wanted;
}

void RunRecipe(const recipe::LoadedRecipe& given, const RunOptions& options) {
  const recipe::LoadedRecipe loaded = Resolved(given);
  CheckJob(loaded, options.group, options.device);
  const std::string folder = options.runs_folder + "/" + loaded.recipe.name;
  std::optional<FileLock> lock;
  OnRoot(options.group, [&] {
    MakeFolders(folder + "/stages");
    lock.emplace(folder + "/lock");
    RemoveUnfinishedFiles(folder);
  });
  CheckRanksSeeFolder(folder, options.group);
  InstallStopSignals();
  Context context(loaded, folder, options.fetch_scripts, options.group);
  context.device = options.device;
  const std::vector<recipe::Stage> stages = StagesOf(loaded.recipe);
  OnRoot(options.group, [&] { PrepareFolder(context, stages, options); });

  bool remade = false;  // A stage made again makes those after it stale.
  for (const recipe::Stage& stage : stages) {
    const StageRecord record(context, stage);
    bool done = record.done() && !record.grows() && !remade;
    if (done && std::holds_alternative<recipe::ExportStage>(stage) &&
        !ExportsAreThere(context, record.result())) {
      LogWarn(recipe::IdOf(stage), ": a file that it made is gone or of another size: made again");
      done = false;
    }
    if (options.group != nullptr) done = options.group->FromRoot(done ? "done" : "due") == "done";
    if (done) {
      LogInfo("stage ", recipe::IdOf(stage), " is done");
      continue;
    }
    remade = true;
    RunOne(context, stage, record);
  }
  OnRoot(options.group, [&] {
    const std::string expectation = CheckExpectations(context);
    if (!expectation.empty()) std::cerr << expectation << "\n";
  });
}

}  // namespace tern::job
