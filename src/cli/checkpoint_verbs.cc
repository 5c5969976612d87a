// tern export and eval: single steps of a recipe on a checkpoint of any run, or on an
// imported model.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "arch/format_names.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/eval_runtime.h"
#include "cli/threads.h"
#include "data/token_file.h"
#include "engine_cli/eval.h"
#include "engine_cli/model_options.h"
#include "eval/perplexity.h"
#include "eval/torch_scorer.h"
#include "ptq/packed_export.h"
#include "transfer/export.h"
#include "transfer/import.h"

namespace tern::cli {
namespace {

struct Flags {
  std::string checkpoint, format, output, embedding, tokenizer, tokens, split = "validation",
                                                                        runtime = "auto";
  int64_t max_tokens = 0, threads = 0;
  bool json = false;
};

void RunExport(const Flags& flags) {
  SetThreads(flags.threads);
  const transfer::OpenedModel model = transfer::OpenDecoder(flags.checkpoint, flags.tokenizer);
  const std::string name = std::filesystem::path(flags.output).stem().string();
  const transfer::ExportText text{model.tokenizer ? &*model.tokenizer : nullptr, model.files};
  const transfer::ExportOptions options{flags.format, flags.embedding, name};
  if (HoldsTrainedCodes(flags.format) && transfer::IsCheckpoint(flags.checkpoint)) {
    ptq::ExportPacked(checkpoint::CheckpointReader(flags.checkpoint), model.decoder, text, options,
                      flags.output);
  } else {
    transfer::Export(model.decoder, text, options, flags.output);
  }
  std::cout << flags.output << "\n";
}

void RunEval(const Flags& flags) {
  SetThreads(flags.threads);
  const transfer::OpenedModel model = transfer::OpenDecoder(flags.checkpoint);
  const model::Decoder& decoder = model.decoder;
  const data::TokenFile tokens = data::TokenFile::Open(flags.tokens);
  TERN_CHECK_INPUT(tokens.vocab_size() == decoder.config().vocab_size, flags.tokens,
                   " has a vocabulary of ", tokens.vocab_size(), ", the model ",
                   decoder.config().vocab_size);
  eval::PerplexityOptions options;
  options.split = data::SplitFromName(flags.split);
  options.sequence_length = decoder.config().context_length;
  options.max_tokens = flags.max_tokens;
  const eval::PerplexityResult result = eval::Perplexity(decoder, tokens, options);
  if (flags.json) {
    std::cout << nlohmann::json{{"perplexity", result.perplexity},
                                {"loss", result.loss},
                                {"tokens", result.tokens}}
                     .dump()
              << "\n";
    return;
  }
  std::cout << "perplexity " << result.perplexity << " on " << result.tokens << " " << flags.split
            << " tokens, windows of " << options.sequence_length << "\n";
}

// A model in libtorch and what scores it.
struct TorchModel {
  TorchModel(const std::string& path, const std::string& tokenizer, int64_t max_length)
      : model(transfer::OpenDecoder(path, tokenizer)),
        scorer(model.decoder, model.tokenizer ? &*model.tokenizer : nullptr, model.stop_tokens,
               path, max_length) {}
  transfer::OpenedModel model;
  eval::TorchScorer scorer;
};

std::shared_ptr<tasks::ModelScorer> OpenInTorch(const Flags& flags, const std::string& path,
                                                const engine_cli::EvalModelOptions& options) {
  SetThreads(options.threads);
  const auto model = std::make_shared<TorchModel>(
      path, transfer::IsCheckpoint(path) ? flags.tokenizer : "", options.scorer.max_length);
  return {model, &model->scorer};
}

}  // namespace

void AddExportCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand("export", "Write a model in a format that engines load");
  command->footer(
      "Example: tern export checkpoints/quickstart/train/step-00000300 --format gguf/tq2_0 -o "
      "model.gguf");
  auto flags = std::make_shared<Flags>();
  command
      ->add_option("checkpoint", flags->checkpoint,
                   "Checkpoint, model file of tern import, GGUF file or Hugging Face "
                   "folder")
      ->required();
  command
      ->add_option(
          "--format", flags->format,
          "Ternary models: gguf/tq2_0, gguf/tq1_0, gguf/i2_s, hf/bitnet, hf/autobitnet; dense "
          "ones: gguf/f16, gguf/bf16, gguf/f32, hf/bf16, hf/f16, hf/f32; checkpoints trained with "
          "quantize.rules: hf/compressed_tensors, gguf/quantized; every one: tern/model")
      ->required();
  command->add_option("-o,--output", flags->output, "File, or folder for hf/...")->required();
  command
      ->add_option(
          "--embedding", flags->embedding,
          "GGUF: type of embedding and head: f16, bf16, f32 or q8_0; default: f16 beside ternary "
          "layers, else that of the format")
      ->check(CLI::IsMember({"f16", "bf16", "f32", "q8_0"}));
  command->add_option("--tokenizer", flags->tokenizer, "tokenizer.model; default: the run's");
  engine_cli::AddThreadsOption(command, &flags->threads);
  command->callback([flags] { RunExport(*flags); });
}

// The verb of engine_cli, and with --tokens the trainer's own evaluation of a checkpoint.
void AddEvalCommand(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  engine_cli::EvalExtension extension;
  extension.instead = [flags](const std::string& model, int threads, bool json) {
    if (flags->tokens.empty()) return false;
    if (model.empty()) throw UsageError("no checkpoint to evaluate");
    flags->checkpoint = model;
    flags->threads = threads;
    flags->json = json;
    RunEval(*flags);
    return true;
  };
  extension.runtime = "libtorch, fp32";
  extension.takes = [flags](const std::string& path, const engine_cli::EvalModelOptions& options,
                            engine_cli::EvalWork work) {
    return RunsInLibtorch(flags->runtime, path, options, work);
  };
  extension.open = [flags](const std::string& path, const engine_cli::EvalModelOptions& options) {
    return OpenInTorch(*flags, path, options);
  };
  CLI::App* command = engine_cli::AddEvalCommand(app, extension);
  command
      ->add_option("--runtime", flags->runtime,
                   "What runs the models: engine, libtorch (fp32), auto: libtorch for checkpoints, "
                   "and for perplexity and divergence of models that compute with floats, where it "
                   "is faster; else the engine, also when --activations or --cache are given")
      ->check(CLI::IsMember({"auto", "engine", "libtorch"}))
      ->capture_default_str();
  command->add_option("--tokenizer", flags->tokenizer,
                      "Of a checkpoint: its tokenizer.model; default: the run's");
  command->add_option("--tokens", flags->tokens,
                      "Token file: the perplexity of a checkpoint on it, as in training");
  command->add_option("--split", flags->split, "Of --tokens: train | validation")
      ->capture_default_str();
  command->add_option("--max-tokens", flags->max_tokens, "Of --tokens; 0: all")
      ->capture_default_str();
}

}  // namespace tern::cli
