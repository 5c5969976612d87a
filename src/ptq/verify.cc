// See verify.h.
#include "ptq/verify.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "engine/model_source.h"
#include "engine/weight_table.h"
#include "formats/gguf.h"
#include "formats/strict_json.h"
#include "ptq/float_model.h"
#include "ptq/ledger.h"
#include "ptq/traps.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;

// The lost power of an unrelated matrix of the same size is about 2, of zeros 1.
constexpr double kMaxError = 1.5;
// The ledger's error is of the same weights; a source in another 16-bit type has lost up to 2^-9 of
// each, 2^-18 of the power, and moves a small error by more than itself.
constexpr double kErrorFactor = 1.001, kErrorSlack = 1e-4;

// Part of the power of `want` that `found` lacks.
double LostPower(const std::vector<float>& found, const float* want) {
  double lost = 0, power = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double x = want[i], difference = x - double{found[i]};
    lost += difference * difference;
    power += x * x;
  }
  return power > 0 ? lost / power : lost;
}

// The ledger's error of a matrix's own weights; below 0 when it has none.
double RecordedError(const std::map<std::string, nlohmann::json>& lines, const std::string& name) {
  const auto line = lines.find(name);
  if (line == lines.end() || line->second.value("error_of", "") != "weights") return -1;
  return line->second.at("error").get<double>();
}

// Columns that were scaled into a norm are no longer the source's.
bool IsComparable(const std::map<std::string, nlohmann::json>& lines, const std::string& name) {
  const auto line = lines.find(name);
  return line == lines.end() || !line->second.contains("channel_exponent");
}

// The rotations that are in the output's weights are put into the source's, too.
void RotateAsLedger(const std::map<std::string, nlohmann::json>& lines, FloatModel* source) {
  const auto rotated = std::find_if(lines.begin(), lines.end(), [](const auto& line) {
    return line.second.contains("rotation");
  });
  if (rotated == lines.end()) return;
  source->Rotate();
  const std::string said = rotated->second["rotation"].get<std::string>();
  if (said != source->RotationText())
    throw NumericError(StrCat("the ledger has the rotation \"", said, "\", this version makes \"",
                              source->RotationText(),
                              "\"; verify it with the version that quantized"));
}

void CompareMatrices(const VerifyOptions& options, engine::ModelSource& output,
                     const Ledger& ledger, VerifyReport* report) {
  std::map<std::string, nlohmann::json> lines;
  for (const nlohmann::json& line : ledger.matrices)
    lines[line.at("tensor").get<std::string>()] = line;
  FloatModel source(options.source, "", /*allow_requantize=*/true);
  CheckConfig(output.config(), source.config(), options.output);
  RotateAsLedger(lines, &source);
  for (const ParameterSpec& spec : ParameterTable(source.config())) {
    if (spec.role != ParameterRole::kLinear || !IsComparable(lines, spec.name)) continue;
    const at::Tensor want = source.Read(spec).contiguous();
    const double error = LostPower(engine::ValuesOf(engine::ReadRunnable(output, spec)),
                                   want.const_data_ptr<float>());
    source.DropPages();
    output.DropPages();
    const double recorded = RecordedError(lines, spec.name);
    const double limit = recorded < 0 ? kMaxError : recorded * kErrorFactor + kErrorSlack;
    if (!(error <= limit)) {
      throw NumericError(StrCat(options.output, ": ", spec.name, " loses ", error,
                                " of the power of the source's weights, the limit is ", limit,
                                ": another model's, rows in another order, or a scale reversed"));
    }
    ++report->compared;
    if (error >= report->worst_error) {
      report->worst_error = error;
      report->worst = spec.name;
    }
  }
}

// Also holds that the values are those that the quantizer had.
void CheckLedger(const std::string& output, const std::string& path, const Ledger& ledger,
                 VerifyReport* report) {
  CheckStored(output, ledger);
  if (fs::is_directory(output)) CheckValues(output, ledger.matrices);
  CheckFiles(output, ledger);
  TERN_CHECK_FORMAT(!ledger.matrices.empty() && !ledger.files.empty(), path, " lists nothing");
  report->matrices = static_cast<int64_t>(ledger.matrices.size());
  report->tensors = static_cast<int64_t>(ledger.stored.size());
  report->files = static_cast<int64_t>(ledger.files.size());
}

}  // namespace

bool IsQuantizedOutput(const std::string& path) {
  if (fs::exists(LedgerPath(path))) return true;
  if (!fs::is_directory(path)) {
    const formats::GgufReader file(path);
    return std::any_of(file.tensors().begin(), file.tensors().end(), [](const auto& tensor) {
      using formats::GgmlType;
      const GgmlType type = tensor.type;
      return tensor.name.starts_with("blk.") && type != GgmlType::kF32 && type != GgmlType::kF16 &&
             type != GgmlType::kBf16 && type != GgmlType::kTq1_0 && type != GgmlType::kTq2_0 &&
             type != GgmlType::kI2_S;
    });
  }
  const std::string config_path = path + "/config.json";
  const nlohmann::json config = formats::ParseStrictJson(ReadFile(config_path), config_path);
  return config.contains("quantization_config") &&
         config["quantization_config"].value("quant_method", "bitnet") != "bitnet";
}

VerifyReport VerifyQuantized(const VerifyOptions& options) {
  const std::string path = LedgerPath(options.output);
  const bool has_ledger = fs::exists(path);
  if (!has_ledger && options.source.empty())
    throw UsageError(StrCat(path, " does not exist, so ", options.output,
                            " has nothing to be held against; give --against its source"));
  VerifyReport report;
  Ledger ledger;
  if (has_ledger) {
    ledger = ReadLedger(path);
    CheckLedger(options.output, path, ledger, &report);
  }
  report.traps = CheckTraps(options.output);
  if (options.source.empty()) return report;
  std::vector<int32_t> tokens = options.tokens;
  {
    const std::unique_ptr<engine::ModelSource> output = engine::OpenModel(options.output);
    CompareMatrices(options, *output, ledger, &report);
    if (tokens.empty()) {
      const std::optional<text::Tokenizer> tokenizer = output->Tokenizer();
      tokens = ProbeTokens(tokenizer ? &*tokenizer : nullptr, output->config());
    }
  }  // The models of the comparison are in memory one after the other
  report.divergence = CompareWithSource(options.source, options.output, tokens, options.threads);
  if (!(report.divergence.mean_kl <= options.max_kl))
    throw NumericError(StrCat(options.output, ": the mean KL to ", options.source, " is ",
                              report.divergence.mean_kl, " over ", report.divergence.tokens,
                              " tokens, the limit ", options.max_kl, " (--max-kl)"));
  return report;
}

}  // namespace tern::ptq
