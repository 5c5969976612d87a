// tern generate: text from a packed model, streamed to stdout; speeds on stderr.
#include "engine/generate.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "engine/hf_model.h"
#include "engine_cli/commands.h"

namespace tern::engine_cli {
namespace {

struct Flags {
  std::string model, prompt;
  engine::GenerateOptions options;
  int threads = 0;
  bool json = false;
};

void Run(const Flags& flags) {
  const engine::Engine engine(engine::LoadModel(flags.model), flags.threads);
  bool begun = false;  // A call that is refused prints nothing
  const auto stream = [&](std::string_view piece) {
    if (flags.json) return;
    if (!begun) std::cout << flags.prompt;
    begun = true;
    std::cout << piece << std::flush;
  };
  const engine::GenerateResult result =
      engine::Generate(engine, flags.prompt, flags.options, stream);
  if (!begun) stream("");  // Nothing came: the prompt alone
  if (flags.json) {
    std::cout << nlohmann::json{{"prompt", flags.prompt},
                                {"text", result.text},
                                {"prompt_tokens", result.prompt_tokens},
                                {"new_tokens", result.new_tokens},
                                {"ended", result.ended},
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
            << FormatSi(result.DecodeRate()) << " tokens/s\n";
}

}  // namespace

void AddGenerateCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand("generate", "Let a model write");
  command->footer(
      "Example: tern generate model.gguf -p \"To be, or not\" -n 64 --temperature 0.8 --top-p "
      "0.95");
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, "GGUF file or Hugging Face folder")->required();
  command->add_option("-p,--prompt", flags->prompt, "Text to continue")->required();
  command->add_option("-n,--tokens", flags->options.max_tokens, "New tokens at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--temperature", flags->options.sampling.temperature, "0: greedy")
      ->capture_default_str();
  command->add_option("--top-k", flags->options.sampling.top_k, "0: all")->capture_default_str();
  command->add_option("--top-p", flags->options.sampling.top_p, "1: all")->capture_default_str();
  command->add_option("--seed", flags->options.sampling.seed, "Of sampling")->capture_default_str();
  command->add_option("--threads", flags->threads, "0: all processors")->capture_default_str();
  command->add_flag("--json", flags->json, "One JSON object instead of streamed text");
  command->callback([flags] { Run(*flags); });
}

}  // namespace tern::engine_cli
