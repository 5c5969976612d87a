// tern generate: text from a packed model, streamed to stdout; speeds on stderr.
#include "engine/generate.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "engine_cli/commands.h"
#include "engine_cli/model_options.h"

namespace tern::engine_cli {
namespace {

struct Flags {
  std::string model, prompt, device = "cpu";
  engine::GenerateOptions options;
  int threads = 0;
  engine::CodeActivations activations = engine::CodeActivations::kInt16;
  bool json = false;
};

const char* Explain(engine::EndReason reason) {
  switch (reason) {
    case engine::EndReason::kEndOfText:
      return "the model ended the text";
    case engine::EndReason::kStopString:
      return "a stop string came";
    case engine::EndReason::kTokenLimit:
      return "the limit of --tokens is reached";
    case engine::EndReason::kContextFull:
      return "the context of the model is full";
  }
  __builtin_unreachable();
}

engine::GenerateResult Generate(const Flags& flags,
                                const std::function<void(std::string_view)>& stream) {
  if (flags.device == "cpu") {
    const engine::Engine engine(LoadWeights(flags.model, flags.activations), flags.threads);
    return engine::Generate(engine, flags.prompt, flags.options, stream);
  }
  CheckActivations(flags.activations, flags.device);
  // The device first: where there is none, nothing is read.
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open(flags.device);
  const engine::ModelWeights weights = LoadWeights(flags.model, flags.activations);
  const engine::DeviceModel model(weights, *device);
  std::cerr << model.Describe() << "\n";
  return engine::GenerateOnDevice(model, flags.prompt, flags.options, stream);
}

void Run(const Flags& flags) {
  bool begun = false;  // A call that is refused prints nothing
  const auto stream = [&](std::string_view piece) {
    if (flags.json) return;
    if (!begun) std::cout << flags.prompt;
    begun = true;
    std::cout << piece << std::flush;
  };
  const engine::GenerateResult result = Generate(flags, stream);
  if (!begun) stream("");  // Nothing came: the prompt alone
  if (flags.json) {
    std::cout << nlohmann::json{{"prompt", flags.prompt},
                                {"text", result.text},
                                {"prompt_tokens", result.prompt_tokens},
                                {"new_tokens", result.new_tokens},
                                {"end", engine::ToString(result.end)},
                                {"prefill_seconds", result.prefill_seconds},
                                {"decode_seconds", result.decode_seconds},
                                {"prefill_tokens_per_second", result.PrefillRate()},
                                {"decode_tokens_per_second", result.DecodeRate()}}
                     .dump()
              << "\n";
    return;
  }
  std::cout << "\n";
  std::cerr << result.prompt_tokens << " prompt tokens, " << FormatSi(result.PrefillRate())
            << " tokens/s; " << result.new_tokens << " new tokens, "
            << FormatSi(result.DecodeRate()) << " tokens/s; " << Explain(result.end) << "\n";
}

}  // namespace

void AddGenerateCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand("generate", "Let a model write");
  command->footer(
      "Example: tern generate model.gguf -p \"To be, or not\" -n 64 --temperature 0.8 --top-p "
      "0.95 --stop \"The End\"\n"
      "The repetition penalty comes first, then top-k, top-p, min-p and the temperature.");
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, kModelHelp)->required();
  command->add_option("-p,--prompt", flags->prompt, "Text to continue")->required();
  command->add_option("-n,--tokens", flags->options.max_tokens, "New tokens at most")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  engine::SamplingOptions& sampling = flags->options.sampling;
  command->add_option("--temperature", sampling.temperature, "0: greedy")->capture_default_str();
  command->add_option("--top-k", sampling.top_k, "Draw from the k most probable; 0: all")
      ->capture_default_str();
  command->add_option("--top-p", sampling.top_p, "Draw from the most probable up to p; 1: all")
      ->capture_default_str();
  command
      ->add_option("--min-p", sampling.min_p,
                   "Draw from those with this share of the highest probability; 0: all")
      ->capture_default_str();
  command
      ->add_option("--repeat-penalty", sampling.repetition_penalty,
                   "Above 1: makes the last tokens less probable; 1: off")
      ->capture_default_str();
  command
      ->add_option("--repeat-last-n", sampling.penalty_tokens,
                   "Tokens it looks back, prompt included; -1: all")
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "Of sampling")->capture_default_str();
  command
      ->add_option("--stop", flags->options.stop,
                   "End before this text; may be given several times (a line end: $'\\n')")
      ->allow_extra_args(false);
  AddCacheOption(command, &flags->options.cache);
  AddActivationsOption(command, &flags->activations);
  AddThreadsOption(command, &flags->threads);
  command->add_option("--device", flags->device, kDeviceHelp)->capture_default_str();
  command->add_flag("--json", flags->json, "One JSON object instead of streamed text");
  command->callback([flags] { Run(*flags); });
}

}  // namespace tern::engine_cli
