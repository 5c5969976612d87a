// tern verify: an export against its checkpoint, or the output of tern quantize against its ledger
// and its source.
#include "ptq/verify.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "arch/format_names.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/threads.h"
#include "engine/model_file.h"
#include "engine/model_source.h"
#include "engine_cli/model_options.h"
#include "formats/gguf.h"
#include "ptq/check.h"
#include "ptq/ledger.h"
#include "ptq/traps.h"
#include "transfer/import.h"
#include "transfer/verify.h"

namespace tern::cli {
namespace {

struct Flags {
  ptq::VerifyOptions options;
  std::string tokenizer;
  int64_t threads = 0;
  bool json = false;
};

// The format of a file by its look, empty for a model file; only the meaning of the scale and the
// rounding of dense matrices depend on it.
std::string FormatOf(const std::string& path) {
  if (!std::filesystem::is_directory(path)) {
    if (engine::IsHdf5(path)) return "";
    const formats::GgufReader file(path);
    const int64_t type = file.Has("general.file_type") ? file.Int("general.file_type") : -1;
    for (const auto& [number, format] : {std::pair(0, "gguf/f32"),
                                         {1, "gguf/f16"},
                                         {2, "gguf/quantized"},
                                         {7, "gguf/quantized"},
                                         {32, "gguf/bf16"}})
      if (type == number) return format;
    return "gguf/tq2_0";
  }
  const auto config = nlohmann::json::parse(ReadFile(path + "/config.json"));
  if (config.contains("quantization_config") &&
      config["quantization_config"].value("quant_method", "") == "compressed-tensors")
    return std::string(kPackedFormat);
  if (!config.contains("quantization_config")) {
    const std::string dtype = config.value("dtype", config.value("torch_dtype", "float32"));
    return dtype == "bfloat16" ? "hf/bf16" : dtype == "float16" ? "hf/f16" : "hf/f32";
  }
  return config["quantization_config"].value("linear_class", "bitlinear") == "bitlinear"
             ? "hf/bitnet"
             : "hf/autobitnet";
}

void VerifyExport(const Flags& flags) {
  const transfer::OpenedModel model = transfer::OpenDecoder(flags.options.source, flags.tokenizer);
  const model::Decoder& decoder = model.decoder;
  const std::string& file = flags.options.output;
  engine::ModelWeights weights = engine::LoadModel(file);
  ptq::CheckTraps(file);
  ptq::CheckConfig(weights.config, decoder.config(), file);
  const std::string format = FormatOf(file);
  const double bound = transfer::MaxMeanKl(decoder, format);
  const transfer::WeightReport w = transfer::CompareWeights(decoder, weights, format);
  transfer::CompareTokenizers(model.tokenizer ? &*model.tokenizer : nullptr, weights);
  const transfer::LogitsReport l = transfer::CompareLogits(
      decoder, std::move(weights), ptq::ProbeTokens(nullptr, decoder.config()),
      static_cast<int>(flags.threads), bound);
  std::cout << file << ": " << w.codes << " ternary weights and " << w.floats
            << " other values equal; logits of " << l.tokens << " tokens: mean KL " << l.mean_kl
            << " (bound " << l.bound_mean_kl << "), top-1 agreement " << 100 * l.top1_agreement
            << " %\n";
}

void PrintJson(const ptq::VerifyReport& r) {
  nlohmann::json json = {{"matrices", r.matrices},
                         {"tensors", r.tensors},
                         {"files", r.files},
                         {"traps", r.traps},
                         {"compared", r.compared}};
  if (r.compared > 0) json.update({{"worst_error", r.worst_error}, {"worst", r.worst}});
  if (r.divergence.tokens > 0) {
    json.update({{"kl_tokens", r.divergence.tokens},
                 {"mean_kl", r.divergence.mean_kl},
                 {"top1_agreement", r.divergence.top1_agreement}});
  }
  std::cout << json.dump() << "\n";
}

void VerifyQuantized(const Flags& flags) {
  const ptq::VerifyReport r = ptq::VerifyQuantized(flags.options);
  if (flags.json) {
    PrintJson(r);
    return;
  }
  std::cout << flags.options.output << ":";
  if (r.files > 0) {
    std::cout << " " << r.matrices << " matrices, " << r.tensors << " tensors and " << r.files
              << " files are those of the ledger";
  } else {
    std::cout << " no ledger";
  }
  std::cout << "\n";
  if (r.compared > 0) {
    std::cout << "  " << r.compared << " matrices stand for the source's; the least good, "
              << r.worst << ", loses " << r.worst_error << " of the power of its weights\n";
  }
  if (r.divergence.tokens > 0) {
    std::cout << "  logits of " << r.divergence.tokens << " tokens: mean KL to the source "
              << r.divergence.mean_kl << " (bound " << flags.options.max_kl
              << "), the same first choice " << 100 * r.divergence.top1_agreement << " %\n";
  }
}

void Run(Flags flags) {
  SetThreads(flags.threads);
  GiveBackLargeBlocks();
  flags.options.threads = static_cast<int>(flags.threads);
  // What was trained quantized is its checkpoint to the bit; only tern quantize keeps a ledger.
  const bool from_checkpoint = !std::filesystem::exists(ptq::LedgerPath(flags.options.output)) &&
                               !flags.options.source.empty() &&
                               transfer::IsCheckpoint(flags.options.source);
  if (!from_checkpoint && ptq::IsQuantizedOutput(flags.options.output)) {
    VerifyQuantized(flags);
    return;
  }
  if (flags.options.source.empty())
    throw UsageError(StrCat(flags.options.output,
                            " is an export without a ledger; give --against its checkpoint"));
  VerifyExport(flags);
}

}  // namespace

void AddVerifyCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "verify", "Prove that an export is its checkpoint, or that a quantized model is intact");
  command->footer(
      "Example: tern verify model.gguf --against checkpoints/quickstart/train/step-00000300");
  auto flags = std::make_shared<Flags>();
  ptq::VerifyOptions& o = flags->options;
  command->add_option("file", o.output, engine_cli::kModelHelp)->required();
  command->add_option("--against", o.source,
                      "The checkpoint of an export; the source of a quantized model, which can do "
                      "without: then its ledger alone is held");
  command
      ->add_option("--max-kl", o.max_kl,
                   "Quantized models: largest mean KL to the source (exit code 4 above)")
      ->check(CLI::Range(1e-12, 1e6))
      ->capture_default_str();
  command->add_option("--tokenizer", flags->tokenizer, "tokenizer.model; default: the run's");
  engine_cli::AddThreadsOption(command, &flags->threads);
  command->add_flag("--json", flags->json, "Quantized models: the report as JSON");
  command->callback([flags] { Run(*flags); });
}

}  // namespace tern::cli
