// tern logits: the logits of every position of a token sequence, for comparison with other
// programs.
#include <CLI/CLI.hpp>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/engine.h"
#include "engine/hf_model.h"
#include "engine_cli/commands.h"

namespace tern::engine_cli {
namespace {

std::vector<int32_t> ReadIds(const std::string& path) {
  std::istringstream text(ReadFile(path));
  std::vector<int32_t> ids;
  for (int32_t id; text >> id;) ids.push_back(id);
  TERN_CHECK_INPUT(text.eof(), path, ": after ", ids.size(),
                   " token ids comes something that is no number");
  return ids;
}

}  // namespace

void AddLogitsCommand(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("logits", "Write the logits of a token sequence as raw fp32 [T, V]");
  command->footer("Example: tern logits model.gguf --tokens ids.txt -o logits.f32");
  struct Flags {
    std::string model, tokens, output;
    int threads = 0;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, "GGUF file or Hugging Face folder")->required();
  command->add_option("--tokens", flags->tokens, "File of token ids, separated by spaces or lines")
      ->required();
  command->add_option("-o,--output", flags->output, "File to write, little-endian")->required();
  command->add_option("--threads", flags->threads, "0: all processors");
  command->callback([flags] {
    const engine::Engine engine(engine::LoadModel(flags->model), flags->threads);
    engine::Session session(engine);
    const std::vector<float> logits =
        session.Append(ReadIds(flags->tokens), engine::LogitsOf::kAll);
    AtomicFile file(flags->output);
    file.Write(logits.data(), logits.size() * sizeof(float));
    file.Commit();
  });
}

}  // namespace tern::engine_cli
