// How `eval` opens models: GGUF files and Hugging Face folders in the engine; a program that links
// more (libtorch) says to AddEvalCommand what of the work its own runtime takes.
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
  bool engine_only = false;  // --activations or --cache are given, which only the engine has
};

// What a model is run for.
enum class EvalWork {
  kWindows,  // Long texts, each position scored: perplexity, divergence
  kTasks,    // Questions that begin alike, text that is generated
};

// What a program with more than the deploy half adds; each may be empty.
struct EvalExtension {
  // Whether `open` shall run this work of the model at `path`, instead of the engine. Throws
  // UsageError when what the user asked for is not to be had.
  std::function<bool(const std::string& path, const EvalModelOptions& options, EvalWork work)>
      takes;
  std::function<std::shared_ptr<tasks::ModelScorer>(const std::string& path,
                                                    const EvalModelOptions& options)>
      open;
  std::string runtime;  // What reports call it
  // Asked before anything else, with the verb's own flags: true when it did what was wanted.
  std::function<bool(const std::string& model, int threads, bool json)> instead;
};

// Returns the verb, for options of the extension.
CLI::App* AddEvalCommand(CLI::App& app, const EvalExtension& extension = {});

}  // namespace tern::engine_cli
