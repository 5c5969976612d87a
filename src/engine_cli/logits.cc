// tern logits: the logits of every position of a token sequence, for comparison with other
// programs.
#include <CLI/CLI.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/device_session.h"
#include "engine/engine.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "engine_cli/commands.h"
#include "engine_cli/model_options.h"
#include "engine_cli/token_ids.h"

namespace tern::engine_cli {

void AddLogitsCommand(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("logits", "Write the logits of a token sequence as raw fp32 [T, V]");
  command->footer("Example: tern logits model.gguf --tokens ids.txt -o logits.f32");
  struct Flags {
    std::string model, tokens, output, device = "cpu";
    int threads = 0;
    kernels::KvType cache = kernels::KvType::kF32;
    engine::CodeActivations activations = engine::CodeActivations::kInt16;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, kModelHelp)->required();
  command->add_option("--tokens", flags->tokens, "File of token ids, separated by spaces or lines")
      ->required();
  command->add_option("-o,--output", flags->output, "File to write, little-endian")->required();
  AddThreadsOption(command, &flags->threads);
  AddActivationsOption(command, &flags->activations);
  AddCacheOption(command, &flags->cache);
  command->add_option("--device", flags->device, kDeviceHelp)->capture_default_str();
  command->callback([flags] {
    const std::vector<int32_t> ids = ParseTokenIds(ReadFile(flags->tokens), flags->tokens);
    const auto length = static_cast<int64_t>(ids.size());
    std::vector<float> logits;
    if (flags->device == "cpu") {
      const engine::Engine engine(LoadWeights(flags->model, flags->activations), flags->threads);
      logits = engine::Session(engine, length, flags->cache).Append(ids, engine::LogitsOf::kAll);
    } else {
      CheckActivations(flags->activations, flags->device);
      const std::unique_ptr<kernels::Device> device = kernels::Device::Open(flags->device);
      const engine::ModelWeights weights = LoadWeights(flags->model, flags->activations);
      const engine::DeviceModel model(weights, *device);
      const bool wide = flags->cache == kernels::KvType::kF32;  // What devices do not have
      logits = engine::DeviceSession(model, {length, wide ? kernels::KvType::kF16 : flags->cache})
                   .AppendAll(ids);
    }
    engine::CheckFinite(logits, StrCat(flags->model, ": the row of logits"));
    AtomicFile file(flags->output);
    file.Write(logits.data(), logits.size() * sizeof(float));
    file.Commit();
  });
}

}  // namespace tern::engine_cli
