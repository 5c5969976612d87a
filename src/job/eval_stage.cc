// The eval stage: perplexity of what the training ships; with `recovery` beside it the model that
// it is to be like, and the start of the training, quantized and not trained.
#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/progress.h"
#include "eval/comparison.h"
#include "eval/perplexity.h"
#include "job/learning_curve.h"
#include "job/stages.h"
#include "job/start.h"
#include "qat/quantized_model.h"
#include "train/step.h"

namespace tern::job {
namespace {

// On which block outputs are compared, and how many at once: every block's inner tensors are held.
constexpr int64_t kBlockTokens = 2048, kBlockWindow = 512;

eval::PerplexityOptions OptionsOf(const Context& context, const recipe::EvalStage& stage,
                                  const model::Decoder& decoder) {
  eval::PerplexityOptions options;
  options.split = data::SplitFromName(stage.split);
  options.sequence_length = decoder.config().context_length;
  options.max_tokens = stage.tokens;
  options.packing = train::PackingOf(context.recipe().data.packing);
  return options;
}

// A result is kept as JSON, which has no other numbers.
double Finite(double value, const std::string& what) {
  if (std::isfinite(value)) return value;
  throw NumericError(StrCat(what, " is ", value,
                            ": its logits overflow, as after a training that diverged; look at "
                            "metrics.jsonl, train again with a lower rate"));
}

eval::Comparison CompareOrStop(Context& context, const recipe::EvalStage& stage,
                               const model::Decoder& decoder, const model::Decoder& reference) {
  const eval::PerplexityOptions options = OptionsOf(context, stage, decoder);
  const eval::Comparison result =
      eval::Compare(decoder, reference, context.TokensFor(options.sequence_length), options);
  if (!result.complete) ThrowStopped(stage.id);
  Finite(result.loss, "the loss of the model");
  Finite(result.reference_loss, "the loss of the reference");
  Finite(result.mean_kl, "the KL divergence of the reference and the model");
  return result;
}

// Adds what `recovery` tells of the shipped decoder.
void AddRecovery(Context& context, const recipe::EvalStage& stage, const model::Decoder& decoder,
                 nlohmann::json* result) {
  const recipe::Recipe& recipe = context.recipe();
  const recipe::SourceModel& like = recipe.teacher.from.empty() ? recipe.start : recipe.teacher;
  const model::Decoder reference = OpenReference(context, like.from, decoder.device());
  const eval::Comparison trained = CompareOrStop(context, stage, decoder, reference);
  (*result)["reference"] = like.from;
  (*result)["reference_loss"] = trained.reference_loss;
  (*result)["mean_kl"] = trained.mean_kl;
  if (nlohmann::json curve = LearningCurve(context, stage.id, reference); !curve.is_null())
    (*result)["curve"] = std::move(curve);
  eval::PerplexityOptions few = OptionsOf(context, stage, decoder);
  few.max_tokens = kBlockTokens;
  few.sequence_length = std::min(few.sequence_length, kBlockWindow);
  const std::vector<double> errors =
      eval::BlockErrors(decoder, reference, context.TokensFor(few.sequence_length), few);
  for (const double error : errors) Finite(error, "the distance of a block's outputs");
  (*result)["block_errors"] = errors;
  if (recipe.start.from.empty()) return;
  const eval::Comparison before = CompareOrStop(
      context, stage, UntrainedStart(context, stage.id).To(decoder.device()), reference);
  (*result)["start_loss"] = before.loss;
  (*result)["start_mean_kl"] = before.mean_kl;
  const double lost = before.loss - trained.reference_loss;
  if (lost > 0) (*result)["recovered"] = (before.loss - (*result)["loss"].get<double>()) / lost;
}

}  // namespace

nlohmann::json RunStage(Context& context, const recipe::EvalStage& stage) {
  std::string folder;
  if (context.is_root()) folder = CheckpointFolder(context, "last", stage.id);
  if (context.group != nullptr) folder = context.group->FromRoot(folder);
  const checkpoint::CheckpointReader reader(folder);
  const c10::Device device =
      context.DeviceOf(*recipe::StageBefore<recipe::TrainStage>(context.recipe(), stage.id));
  const model::Decoder decoder = qat::LoadShipped(reader).To(device);
  eval::PerplexityOptions options = OptionsOf(context, stage, decoder);
  options.group = context.group;
  std::optional<ProgressLine> progress;
  if (context.is_root()) {
    progress.emplace(stage.id, "windows", ProgressLine::Options{});
    options.progress = [&](int64_t done, int64_t) { progress->Update(done); };
  }
  const eval::PerplexityResult perplexity =
      eval::Perplexity(decoder, context.TokensFor(options.sequence_length), options);
  if (progress) progress->Finish();
  if (!perplexity.complete) ThrowStopped(stage.id);
  nlohmann::json result = {{"split", stage.split},
                           {"loss", Finite(perplexity.loss, stage.id + ": the loss")},
                           {"perplexity", Finite(perplexity.perplexity, stage.id + ": perplexity")},
                           {"tokens", perplexity.tokens},
                           {"sequence_length", options.sequence_length}};
  // With several ranks each of them computes the same numbers.
  if (stage.recovery) AddRecovery(context, stage, decoder, &result);
  return result;
}

}  // namespace tern::job
