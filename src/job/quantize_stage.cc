// See quantize_stage.h.
#include "job/quantize_stage.h"

#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "job/stages.h"
#include "job/start.h"
#include "ptq/check_options.h"
#include "ptq/gguf_mix.h"
#include "ptq/ledger.h"
#include "recipe/schema.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;

bool MakesFile(const recipe::QuantizeStage& stage) {
  return ptq::TargetOf(stage) ? stage.container.empty() : ptq::GgufMixByName(stage.to).has_value();
}

// Without the source, which may not be there yet, and with the ending of the output alone.
ptq::QuantizeOptions OptionsOf(const recipe::QuantizeStage& stage) {
  ptq::QuantizeOptions options;
  static_cast<recipe::QuantizeSettings&>(options) = stage;
  if (options.calibration == recipe::kNoCalibration) options.calibration.clear();
  options.output = MakesFile(stage) ? ".gguf" : "";
  return options;
}

bool ReadsTrainingText(const recipe::QuantizeStage& stage) { return stage.calibration.empty(); }

std::string SourceOf(Context& context, const recipe::QuantizeStage& stage) {
  if (recipe::StageBefore<recipe::TrainStage>(context.recipe(), stage.id) == nullptr)
    return context.recipe().start.from;
  return CheckpointFolder(context, stage.checkpoint, stage.id);
}

void CheckStage(const recipe::LoadedRecipe& loaded, const recipe::QuantizeStage& stage) {
  const recipe::Recipe& recipe = loaded.recipe;
  const auto to = loaded.origins.find(stage.id + ".to");
  if (ptq::TargetOf(stage) && to != loaded.origins.end() && to->second != "default") {
    throw RecipeError(StrCat(stage.id, ".to: found ", stage.to, " beside a size, for which ",
                             "types are chosen; want one of the two"));
  }
  ptq::QuantizeOptions options = OptionsOf(stage);
  if (ReadsTrainingText(stage)) {
    options.training_text = []() -> const data::TokenSource& {
      throw BugError("nothing is read before the stage");
    };
  }
  ptq::CheckOptions(options, recipe.model);
  // From a GGUF file to another it is copied as it is.
  const recipe::SourceModel* model = TokenizerModel(recipe);
  const bool trained = recipe::StageBefore<recipe::TrainStage>(recipe, stage.id) != nullptr;
  const bool copied = !trained && recipe.start.from.ends_with(".gguf");
  if (!MakesFile(stage) || model == nullptr || copied) return;
  CheckGgufHolds(TokenizerOf(*model), model->from, stage.id + ".to");
}

nlohmann::json Result(const ptq::QuantizeReport& report, const std::string& path,
                      const std::string& source) {
  nlohmann::json result = ptq::ReportJson(report);
  result["path"] = path;
  result["source"] = source;
  return result;
}

}  // namespace

void CheckQuantizeStages(const recipe::LoadedRecipe& loaded) {
  for (const recipe::Stage& stage : loaded.recipe.stages) {
    const auto* quantize = std::get_if<recipe::QuantizeStage>(&stage);
    if (quantize == nullptr) continue;
    try {
      CheckStage(loaded, *quantize);
    } catch (const UsageError& error) {
      throw RecipeError(StrCat(quantize->id, ": ", error.what(), " (its keys are the options of ",
                               "tern quantize)"));
    } catch (const InputError& error) {
      throw RecipeError(StrCat(quantize->id, ": ", error.what()));
    }
  }
}

std::string QuantizedPath(const Context& context, const recipe::QuantizeStage& stage) {
  const bool is_named = stage.id != recipe::QuantizeStage{}.id;
  const std::string of = is_named ? stage.id : ptq::TargetOf(stage) ? "mixed" : stage.to;
  return StrCat(context.ExportsFolder(), "/", context.recipe().name, "-", of,
                MakesFile(stage) ? ".gguf" : "");
}

std::vector<std::string> QuantizedPaths(const Context& context,
                                        const recipe::QuantizeStage& stage) {
  const std::string path = QuantizedPath(context, stage);
  return {path, path + ".partial", path + ".ledger.jsonl"};
}

void ForgetQuantized(const Context& context, const recipe::QuantizeStage& stage) {
  for (const std::string& made : QuantizedPaths(context, stage)) fs::remove_all(made);
}

ptq::VerifyReport VerifyQuantized(const Context& context, const recipe::QuantizeStage& stage,
                                  const std::vector<int32_t>& tokens) {
  ptq::VerifyOptions options;
  options.output = QuantizedPath(context, stage);
  options.source = StageResult(context, stage.id).at("source").get<std::string>();
  options.tokens = tokens;
  options.threads = static_cast<int>(context.recipe().threads);
  return ptq::VerifyQuantized(options);
}

nlohmann::json RunStage(Context& context, const recipe::QuantizeStage& stage) {
  ptq::QuantizeOptions options = OptionsOf(stage);
  options.source = SourceOf(context, stage);
  options.output = QuantizedPath(context, stage);
  if (const recipe::SourceModel* model = TokenizerModel(context.recipe());
      model != nullptr && model->from != options.source) {
    options.companions = model->from;
  }
  if (ReadsTrainingText(stage)) {
    options.training_text = [&]() -> const data::TokenSource& { return context.Tokens(); };
  }
  // The exports folder is the run's own: what is there is of this stage, before it was to be made
  // again.
  options.discard_other_work = true;
  if (fs::exists(options.output)) ForgetQuantized(context, stage);
  options.threads = static_cast<int>(context.recipe().threads);
  std::optional<ProgressLine> line;
  options.progress = [&](int64_t done, int64_t layers) {
    if (!line) {
      ProgressLine::Options shown;
      shown.total = layers;
      shown.start = done;
      line.emplace(stage.id, "layers", shown);
    }
    line->Update(done);
  };
  const ptq::QuantizeReport report = ptq::QuantizeModel(options);
  if (line) line->Finish();
  LogInfo(stage.id, ": ", options.output, " has all of the quantizer's values");
  context.journal.Append("quantized", {{"path", options.output}, {"source", options.source}});
  return Result(report, options.output, options.source);
}

}  // namespace tern::job
