// The export, verify and generate stages: from the checkpoint to files and text.
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "arch/format_names.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "engine/generate.h"
#include "engine/model_source.h"
#include "engine/weight_table.h"
#include "job/quantize_stage.h"
#include "job/stages.h"
#include "job/start.h"
#include "ptq/packed_export.h"
#include "qat/quantized_model.h"
#include "recipe/schema.h"
#include "transfer/export.h"
#include "transfer/import.h"
#include "transfer/verify.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;

int64_t SizeOf(const std::string& path) {
  if (!fs::is_directory(path)) return static_cast<int64_t>(fs::file_size(path));
  int64_t size = 0;
  for (const auto& entry : fs::directory_iterator(path))
    size += static_cast<int64_t>(entry.file_size());
  return size;
}

std::string ExportPath(const Context& context, const std::string& format) {
  return context.ExportsFolder() + "/" + transfer::ExportName(context.recipe().name, format);
}

std::vector<int32_t> VerifyTokens(Context& context, int64_t wanted) {
  const data::TokenSource& tokens = context.Tokens();
  const data::Split split = tokens.NumTokens(data::Split::kValidation) > 0
                                ? data::Split::kValidation
                                : data::Split::kTrain;
  const int64_t count =
      std::min({wanted, tokens.NumTokens(split), context.recipe().model.context_length});
  std::vector<int32_t> ids(static_cast<size_t>(count));
  tokens.Copy(split, 0, count, ids.data());
  return ids;
}

}  // namespace

bool ExportsAreThere(const Context& context, const nlohmann::json& result) {
  const auto& files = result.at("files");
  return std::all_of(files.begin(), files.end(), [&](const nlohmann::json& file) {
    const std::string path = ExportPath(context, file.at("format").get<std::string>());
    return fs::exists(path) && SizeOf(path) == file.at("bytes").get<int64_t>();
  });
}

nlohmann::json RunStage(Context& context, const recipe::ExportStage& stage) {
  const std::string source = CheckpointFolder(context, stage.checkpoint, stage.id);
  const checkpoint::CheckpointReader reader(source);
  const model::Decoder decoder = qat::LoadShipped(reader);
  MakeFolders(context.ExportsFolder());
  transfer::ExportText text{&context.Tokenizer(), {}};
  if (const recipe::SourceModel* model = TokenizerModel(context.recipe()))
    text.files = transfer::ReadModelInfo(model->from).files;
  nlohmann::json files = nlohmann::json::array();
  for (const std::string& format : stage.formats) {
    const std::string path = ExportPath(context, format);
    const transfer::ExportOptions options{format, stage.embedding, context.recipe().name};
    HoldsTrainedCodes(format) ? ptq::ExportPacked(reader, decoder, text, options, path)
                              : transfer::Export(decoder, text, options, path);
    LogInfo("exported ", path);
    context.journal.Append("exported",
                           {{"format", format}, {"path", path}, {"checkpoint", source}});
    files.push_back({{"format", format}, {"path", path}, {"bytes", SizeOf(path)}});
  }
  return {{"checkpoint", source}, {"files", files}};
}

namespace {

void VerifyExports(Context& context, const recipe::ExportStage& exported,
                   const std::vector<int32_t>& tokens, nlohmann::json* files) {
  const model::Decoder decoder = qat::LoadShipped(
      checkpoint::CheckpointReader(CheckpointFolder(context, exported.checkpoint, exported.id)));
  for (const std::string& format : exported.formats) {
    engine::ModelWeights weights = engine::LoadModel(ExportPath(context, format));
    const transfer::WeightReport w = transfer::CompareWeights(decoder, weights, format);
    transfer::CompareTokenizers(&context.Tokenizer(), weights);
    const double bound = transfer::MaxMeanKl(decoder, format);
    const transfer::LogitsReport l = transfer::CompareLogits(
        decoder, std::move(weights), tokens, static_cast<int>(context.recipe().threads), bound);
    LogInfo("verified ", format, ": ", w.codes, " ternary weights and ", w.floats,
            " other values equal, mean KL ", l.mean_kl, " over ", l.tokens, " tokens (bound ",
            l.bound_mean_kl, ")");
    files->push_back({{"format", format},
                      {"ternary_matrices", w.matrices},
                      {"ternary_weights", w.codes},
                      {"other_values", w.floats},
                      {"tokens", l.tokens},
                      {"mean_kl", l.mean_kl},
                      {"bound_mean_kl", l.bound_mean_kl},
                      {"max_kl", l.max_kl},
                      {"max_logit_difference", l.max_difference},
                      {"top1_agreement", l.top1_agreement}});
  }
}

nlohmann::json VerifyOne(const Context& context, const recipe::QuantizeStage& stage,
                         const std::vector<int32_t>& tokens) {
  const ptq::VerifyReport r = VerifyQuantized(context, stage, tokens);
  LogInfo("verified ", stage.id, ": ", r.matrices,
          " matrices have the quantizer's values, mean KL ", r.divergence.mean_kl, " over ",
          r.divergence.tokens, " tokens");
  return {{"stage", stage.id},
          {"path", QuantizedPath(context, stage)},
          {"matrices", r.matrices},
          {"compared", r.compared},
          {"worst_error", r.worst_error},
          {"worst", r.worst},
          {"tokens", r.divergence.tokens},
          {"mean_kl", r.divergence.mean_kl},
          {"bound_mean_kl", ptq::kMaxVerifiedKl},
          {"top1_agreement", r.divergence.top1_agreement}};
}

}  // namespace

nlohmann::json RunStage(Context& context, const recipe::VerifyStage& stage) {
  const std::vector<int32_t> tokens = VerifyTokens(context, stage.tokens);
  nlohmann::json files = nlohmann::json::array(), quantized = nlohmann::json::array();
  if (const auto* exported = recipe::StageBefore<recipe::ExportStage>(context.recipe(), stage.id))
    VerifyExports(context, *exported, tokens, &files);
  for (const auto* made : recipe::StagesBefore<recipe::QuantizeStage>(context.recipe(), stage.id))
    quantized.push_back(VerifyOne(context, *made, tokens));
  return {{"files", files}, {"quantized", quantized}};
}

nlohmann::json RunStage(Context& context, const recipe::GenerateStage& stage) {
  const auto* exported = recipe::StageBefore<recipe::ExportStage>(context.recipe(), stage.id);
  const std::string path = exported != nullptr
                               ? ExportPath(context, exported->formats.front())
                               : QuantizedPath(context, *recipe::StageBefore<recipe::QuantizeStage>(
                                                            context.recipe(), stage.id));
  engine::ModelWeights weights = engine::LoadModel(path);
  // An export runs as it was trained.
  if (exported != nullptr && engine::AsksForRoundedInputs(weights))
    engine::SetActivations(engine::CodeActivations::kFolder, &weights);
  const engine::Engine engine(std::move(weights), static_cast<int>(context.recipe().threads));
  engine::GenerateOptions options;
  options.max_tokens = stage.tokens;
  options.sampling = {stage.temperature, stage.top_k, stage.top_p,
                      static_cast<uint64_t>(context.recipe().seed)};
  std::cout << stage.prompt << std::flush;
  const engine::GenerateResult result =
      engine::Generate(engine, stage.prompt, options,
                       [](std::string_view piece) { std::cout << piece << std::flush; });
  std::cout << std::endl;
  return {{"model", path},
          {"prompt", stage.prompt},
          {"text", result.text},
          {"new_tokens", result.new_tokens},
          {"tokens_per_second",
           static_cast<double>(result.new_tokens) / std::max(result.decode_seconds, 1e-9)}};
}

}  // namespace tern::job
