// tern import: a GGUF file or a Hugging Face folder as one model file.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>

#include "base/error.h"
#include "base/progress.h"
#include "engine/model_file.h"
#include "engine_cli/commands.h"

namespace tern::engine_cli {
namespace {

void PrintModel(const engine::ModelSource& source) {
  const ModelConfig& c = source.config();
  std::cout << "  " << c.num_layers << " layers, width " << c.hidden_size << ", FFN "
            << c.intermediate_size << ", " << c.num_heads << " heads and " << c.num_kv_heads
            << " of keys and values of " << c.HeadDim() << ", vocabulary " << c.vocab_size
            << ", context " << c.context_length << "\n  " << CountParameters(c) << " parameters, "
            << ToString(c.linear) << ", " << ToString(c.activation)
            << (c.HasOutputNorms() ? StrCat(", sub-norms ", ToString(c.sub_norms)) : "")
            << (c.qk_norm ? ", QK norm" : "") << (c.qkv_bias ? ", biases on q, k and v" : "")
            << (c.tied_head ? ", tied head" : ", head of its own") << ", RoPE base " << c.rope_theta
            << ", scaling " << ToString(c.rope_scaling.kind) << "\n";
  const auto layers = std::count_if(c.attention_windows.begin(), c.attention_windows.end(),
                                    [](int64_t window) { return window > 0; });
  if (layers > 0) {
    std::cout << "  attention slides in " << layers << " layers, over "
              << CutToWindow(c).context_length << " tokens\n";
  }
}

void Run(const std::string& from, const std::string& to) {
  const std::unique_ptr<engine::ModelSource> source = engine::OpenModel(from);
  ProgressLine progress("import", "tensors", {});
  const engine::ModelFileReport report =
      engine::WriteModelFile(*source, to, [&](int64_t done, int64_t) { progress.Update(done); });
  progress.Finish();
  std::cout << to << ": " << report.tensors << " tensors, " << report.size_bytes << " bytes, from "
            << from << "\n";
  PrintModel(*source);
}

}  // namespace

void AddImportCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "import", "Make a model file (HDF5) of a GGUF file or a Hugging Face folder");
  command->footer("Example: tern import SmolLM2-135M-Instruct -o smollm2.h5");
  struct Flags {
    std::string from, to;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("source", flags->from, "GGUF file or Hugging Face folder")->required();
  command->add_option("-o,--output", flags->to, "The model file, e.g. model.h5")->required();
  command->callback([flags] { Run(flags->from, flags->to); });
}

}  // namespace tern::engine_cli
