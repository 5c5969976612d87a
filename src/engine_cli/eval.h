// How `eval` opens models: GGUF files and Hugging Face folders in the engine; a program that links
// more (checkpoints through libtorch) gives its own opener to AddEvalCommand.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/code_activations.h"
#include "tasks/engine_scorer.h"
#include "tasks/scorer.h"

namespace CLI {
class App;
}

namespace tern::engine_cli {

struct EvalModelOptions {
  int threads = 0;
  engine::CodeActivations activations = engine::CodeActivations::kInt16;
  tasks::EngineScorerOptions scorer;
};

// The model at `path`, or null when it is not of the opener's kind; throws when it is and cannot be
// read.
using OpenModel = std::function<std::shared_ptr<tasks::ModelScorer>(const std::string& path,
                                                                    const EvalModelOptions&)>;

// What a program with more than the deploy half adds; each may be empty.
struct EvalExtension {
  OpenModel open;  // Asked before the engine
  // Asked before anything else, with the verb's own flags: true when it did what was wanted.
  std::function<bool(const std::string& model, int threads, bool json)> instead;
};

// Returns the verb, for options of the extension.
CLI::App* AddEvalCommand(CLI::App& app, const EvalExtension& extension = {});

}  // namespace tern::engine_cli
