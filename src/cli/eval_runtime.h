// What runs a model in `tern eval`: the engine or libtorch.
#pragma once

#include <string>

#include "engine_cli/eval.h"

namespace tern::cli {

// Whether libtorch runs this work of the model at `path`. `runtime`: engine, libtorch, or auto:
// libtorch for checkpoints, which nothing else runs, and for long windows of models that compute
// with floats, where one large product a matrix and libtorch's attention are faster than the engine
// (docs/tasks.md has figures), if their fp32 parameters fit easily. The engine for all else: shared
// beginnings, generated text, ternary models, and where its options were asked for. The same call
// on the same machine always gives the same answer, so that results do, too. Throws UsageError:
// engine for a checkpoint; what opening the model throws.
bool RunsInLibtorch(const std::string& runtime, const std::string& path,
                    const engine_cli::EvalModelOptions& options, engine_cli::EvalWork work);

// Whether fp32 parameters of that count are small beside the memory of this machine: two such
// models and their activations fit.
bool FitsInFp32(int64_t parameters, int64_t memory_bytes);

}  // namespace tern::cli
