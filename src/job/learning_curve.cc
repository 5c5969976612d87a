// See learning_curve.h.
#include "job/learning_curve.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "eval/perplexity.h"
#include "metrics/metrics_log.h"
#include "metrics/power_law.h"
#include "recipe/schema.h"
#include "train/step.h"

namespace tern::job {
namespace {

using Points = std::vector<std::pair<int64_t, double>>;

constexpr const char* kRatios[] = {"1.5", "1.1"};  // Of perplexities

// (tokens trained since the start of the run, validation loss).
Points LossesOverTokens(const Context& context, const recipe::TrainStage& stage) {
  const int64_t settled = std::max(stage.quantize.warmup_steps, stage.schedule.warmup_steps);
  Points losses;
  int64_t tokens = 0;
  for (const MetricsRecord& record : ReadMetrics(context.Path("metrics.jsonl"))) {
    tokens += record.values.value("tokens", int64_t{0});
    if (record.stage == stage.id && record.step > settled &&
        record.values.contains("validation_loss"))
      losses.emplace_back(tokens, record.values["validation_loss"].get<double>());
    if (record.stage == stage.id && record.step == stage.steps) break;
  }
  return losses;
}

}  // namespace

nlohmann::json LearningCurve(Context& context, const std::string& eval_id,
                             const model::Decoder& reference) {
  const recipe::TrainStage& stage =
      *recipe::StageBefore<recipe::TrainStage>(context.recipe(), eval_id);
  Points losses = LossesOverTokens(context, stage);
  if (losses.size() < 2) return nullptr;  // Saves the pass below
  eval::PerplexityOptions options;        // The trainer's
  options.sequence_length = stage.sequence_length;
  options.max_tokens = stage.eval_tokens;
  options.packing = train::PackingOf(context.recipe().data.packing);
  const eval::PerplexityResult of_reference =
      eval::Perplexity(reference, context.TokensFor(options.sequence_length), options);
  if (!of_reference.complete) ThrowStopped(eval_id);
  for (auto& [tokens, loss] : losses) loss -= of_reference.loss;
  const std::optional<PowerLaw> law = FitPowerLaw(losses);
  if (!law) return nullptr;
  nlohmann::json to;
  for (const char* ratio : kRatios) to[ratio] = law->TokensTo(std::log(std::stod(ratio)));
  return {{"reference_loss", of_reference.loss}, {"points", law->points},
          {"coefficient", law->coefficient},     {"exponent", law->exponent},
          {"r_squared", law->r_squared},         {"to", to}};
}

std::string LearningCurveLines(const nlohmann::json& curve) {
  if (curve.is_null()) return "";
  std::string text =
      StrCat("  - extrapolated, not measured: validation loss above the reference's = ",
             FormatSi(curve["coefficient"]), " x tokens^-", FormatFixed(curve["exponent"], 3), " (",
             curve["points"], " points, R^2 ", FormatFixed(curve["r_squared"], 3), ");");
  for (const char* ratio : kRatios) {
    text +=
        StrCat(ratio == kRatios[0] ? " " : ", ", ratio, " times the reference's perplexity after ",
               FormatSi(curve["to"][ratio]), " tokens");
  }
  return text + "\n";
}

}  // namespace tern::job
