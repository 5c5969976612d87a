// What several verbs ask about how a model is run.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "engine/model_weights.h"
#include "kernels/attention/attention.h"

namespace tern::engine_cli {

// --exact: see LoadWeights.
void AddExactOption(CLI::App* command, bool* exact);
// Throws UsageError when `exact` is asked of a device, whose kernels take the codes as they are.
void CheckExact(bool exact, const std::string& device);
// --cache f32 | f16 | int8, by default what *cache is.
void AddCacheOption(CLI::App* command, kernels::KvType* cache);

// The model; with `exact` its codes of 2 to 6 bits are decoded to fp32. Throws as LoadModel does.
engine::ModelWeights LoadWeights(const std::string& path, bool exact);

}  // namespace tern::engine_cli
