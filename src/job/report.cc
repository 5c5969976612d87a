// See report.h.
#include "job/report.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "job/learning_curve.h"
#include "job/stages.h"
#include "job/start.h"
#include "recipe/schema.h"

namespace tern::job {
namespace {

std::string Short(double value) {
  std::ostringstream out;
  out << std::setprecision(2) << value;
  return out.str();
}

std::string Lines(const recipe::PrepareStage&, const nlohmann::json& r) {
  return StrCat("- data: ", r["train_tokens"], " training and ", r["validation_tokens"],
                " validation tokens, vocabulary ", r["vocab_size"], "\n");
}
// What each loss was when gradients were last measured.
std::string LossLines(const nlohmann::json& losses) {
  std::string text;
  for (const auto& [name, loss] : losses.items()) {
    if (!loss.contains("grad_share")) continue;
    text += StrCat("  - ", name, ": ", Short(loss["weight"]), " x ", FormatFixed(loss["value"], 4),
                   ", ", FormatFixed(100 * loss["grad_share"].get<double>(), 1),
                   " % of the losses' gradients\n");
  }
  return text;
}

std::string GeneratedLine(const nlohmann::json& generated) {
  return StrCat("  - ", generated["steps"], " steps on text that the ",
                generated["by"].get<std::string>(), " wrote, ", generated["tokens"], " tokens\n");
}

// Records of versions that did not count tensors have none.
std::string TensorWords(const nlohmann::json& r) {
  if (!r.contains("peak_tensor_bytes")) return "";
  return StrCat(", of it tensors ", FormatBytes(r["peak_tensor_bytes"]), " (planned ",
                FormatBytes(r["predicted_tensor_bytes"]), ")");
}

std::string Lines(const recipe::TrainStage& stage, const nlohmann::json& r) {
  return StrCat("- ", stage.id, ": ", r["steps"], " steps, loss ", FormatFixed(r["loss"], 4),
                ", validation loss ", FormatFixed(r["validation_loss"], 4), ", ",
                FormatSi(r["tokens_per_second"]), " tokens/s (",
                FormatFixed(100 * r["share_of_gemm_peak"].get<double>(), 0),
                " % of the fp32 GEMM peak), peak memory ", FormatBytes(r["peak_memory_bytes"]),
                " (planned ", FormatBytes(r["predicted_memory_bytes"]), ")", TensorWords(r), "\n") +
         (r.contains("teacher") ? StrCat("  - teacher: ", TeacherWords(r["teacher"]), "\n") : "") +
         (r.contains("losses") ? LossLines(r["losses"]) : "") +
         (r.contains("generated") ? GeneratedLine(r["generated"]) : "");
}
// Of an eval stage with `recovery`.
std::string RecoveryLines(const nlohmann::json& r) {
  std::string text = StrCat("  - ", r["reference"].get<std::string>(), ": perplexity ",
                            FormatFixed(std::exp(r["reference_loss"].get<double>()), 2),
                            "; KL to it ", FormatFixed(r["mean_kl"], 4), " nats a token\n");
  if (r.contains("start_loss")) {
    text +=
        StrCat("  - quantized and not trained: perplexity ",
               FormatFixed(std::exp(r["start_loss"].get<double>()), 2), ", KL ",
               FormatFixed(r["start_mean_kl"], 4),
               r.contains("recovered") ? StrCat("; training won back ",
                                                FormatFixed(100 * r["recovered"].get<double>(), 1),
                                                " % of the lost log-perplexity\n")
                                       : "\n");
  }
  text += LearningCurveLines(r.value("curve", nlohmann::json()));
  const auto errors = r["block_errors"].get<std::vector<double>>();
  if (errors.empty()) return text;
  const auto worst = std::max_element(errors.begin(), errors.end());
  return text + StrCat("  - outputs of blocks differ by ", Short(100 * errors.front()),
                       " % of their power in block 0, ", Short(100 * errors.back()), " % in block ",
                       errors.size() - 1, ", the most in block ", worst - errors.begin(), ", ",
                       Short(100 * *worst), " %\n");
}
std::string Lines(const recipe::EvalStage& stage, const nlohmann::json& r) {
  return StrCat("- ", stage.id, ": perplexity ", FormatFixed(r["perplexity"], 2), " on ",
                r["tokens"], " ", r["split"].get<std::string>(), " tokens, windows of ",
                r["sequence_length"], "\n") +
         (r.contains("reference") ? RecoveryLines(r) : "");
}
std::string Lines(const recipe::ExportStage& stage, const nlohmann::json& r) {
  std::string text;
  for (const auto& file : r["files"]) {
    text += StrCat("- ", stage.id, ": ", file["format"].get<std::string>(), ", ",
                   FormatBytes(file["bytes"]), ", ", file["path"].get<std::string>(), "\n");
  }
  return text;
}
std::string Lines(const recipe::VerifyStage& stage, const nlohmann::json& r) {
  std::string text;
  for (const auto& file : r["files"]) {
    const double bound = file.value("bound_mean_kl", 0.0);  // Absent in runs of older versions
    text += StrCat("- ", stage.id, ": ", file["format"].get<std::string>(), ": ",
                   file["ternary_weights"], " ternary weights equal, logits of ", file["tokens"],
                   " tokens: mean KL ", Short(file["mean_kl"]),
                   bound > 0 ? StrCat(" (bound ", Short(bound), ")") : "", ", top-1 agreement ",
                   FormatFixed(100 * file["top1_agreement"].get<double>(), 1), " %\n");
  }
  for (const auto& made : r.value("quantized", nlohmann::json::array())) {
    text += StrCat("- ", stage.id, ": ", made["stage"].get<std::string>(), ": ", made["matrices"],
                   " matrices have the quantizer's values, logits of ", made["tokens"],
                   " tokens: mean KL to the source ", Short(made["mean_kl"]), ", top-1 agreement ",
                   FormatFixed(100 * made["top1_agreement"].get<double>(), 1), " %\n");
  }
  return text;
}
std::string Lines(const recipe::QuantizeStage& stage, const nlohmann::json& r) {
  std::string text =
      StrCat("- ", stage.id, ": ", r["scheme"].get<std::string>(), ", ",
             FormatFixed(r["bits_per_weight"], 2), " bits a weight, ", FormatBytes(r["size_bytes"]),
             ", ", r["path"].get<std::string>(), "; mean error ", Short(r["error"]),
             r["calibration_tokens"].get<int64_t>() > 0
                 ? StrCat(" of the outputs' power on ", r["calibration_tokens"], " tokens")
                 : std::string(" of the weights' power"));
  if (r["kl_tokens"].get<int64_t>() > 0) {
    text += StrCat(", mean KL to the source ", Short(r["mean_kl"]), " on ", r["kl_tokens"],
                   " training tokens that it has not seen");
  }
  if (r["fallbacks"].get<int64_t>() > 0)
    text += StrCat("; ", r["fallbacks"], " matrices fell back: see the ledger");
  return text + "\n";
}
std::string Lines(const recipe::GenerateStage& stage, const nlohmann::json& r) {
  return StrCat("- ", stage.id, ": ", r["new_tokens"], " tokens, ",
                FormatSi(r["tokens_per_second"]), " tokens/s\n");
}
std::string Lines(const recipe::ReportStage&, const nlohmann::json&) { return ""; }

}  // namespace

std::string MakeReport(const Context& context) {
  std::string text = StrCat("# ", context.recipe().name, "\n\n");
  if (const nlohmann::json prepared = StageResult(context, "prepare"); !prepared.is_null()) {
    text += Lines(recipe::PrepareStage{}, prepared);
  }
  for (const recipe::Stage& stage : context.recipe().stages) {
    if (std::holds_alternative<recipe::PrepareStage>(stage)) continue;
    const nlohmann::json result = StageResult(context, recipe::IdOf(stage));
    if (result.is_null()) continue;
    text += std::visit([&](const auto& s) { return Lines(s, result); }, stage);
  }
  return text;
}

nlohmann::json ReportOf(const Context& context) {
  nlohmann::json stages = nlohmann::json::array();
  for (const recipe::Stage& stage : context.recipe().stages) {
    const nlohmann::json result = StageResult(context, recipe::IdOf(stage));
    if (result.is_null()) continue;
    stages.push_back(
        {{"id", recipe::IdOf(stage)}, {"kind", recipe::KindOf(stage)}, {"result", result}});
  }
  return {{"name", context.recipe().name}, {"seed", context.recipe().seed}, {"stages", stages}};
}

std::string CheckExpectations(const Context& context) {
  const double limit = context.recipe().expect.validation_perplexity_below;
  if (limit <= 0) return "";
  double perplexity = 0;
  for (const recipe::Stage& stage : context.recipe().stages) {
    const nlohmann::json result = StageResult(context, recipe::IdOf(stage));
    if (result.is_null()) continue;
    if (std::holds_alternative<recipe::TrainStage>(stage))
      perplexity = std::exp(result["validation_loss"].get<double>());
    const auto* eval = std::get_if<recipe::EvalStage>(&stage);
    if (eval != nullptr && eval->split == "validation")
      perplexity = result["perplexity"].get<double>();
  }
  if (!(perplexity < limit)) {
    throw NumericError(StrCat("expectation missed: validation perplexity ", perplexity,
                              ", the recipe expects below ", limit,
                              " (expect.validation_perplexity_below)"));
  }
  return StrCat("expectation held: validation perplexity ", FormatFixed(perplexity, 2),
                " is below ", limit);
}

nlohmann::json RunStage(Context& context, const recipe::ReportStage&) {
  const std::string report = MakeReport(context);
  WriteFileAtomically(context.Path("report.md"), report);
  WriteFileAtomically(context.Path("report.json"), ReportOf(context).dump(2) + "\n");
  std::cerr << report;
  return {{"path", context.Path("report.md")}};
}

}  // namespace tern::job
