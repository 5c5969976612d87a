// What several verbs ask about how a model is run.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "engine/model_weights.h"
#include "kernels/attention/attention.h"

namespace tern::engine_cli {

// What a verb takes that runs models (engine::OpenModel).
inline constexpr const char* kModelHelp =
    "GGUF file, Hugging Face folder or model file of tern import";

// --activations int8 | int16 | f32, by default what *activations is: see CodeActivations.
void AddActivationsOption(CLI::App* command, engine::CodeActivations* activations);
// Throws UsageError when anything but the default or a folder's is asked of a device, whose kernels
// have their own.
void CheckActivations(engine::CodeActivations activations, const std::string& device);
// --cache f32 | f16 | int8, by default what *cache is.
void AddCacheOption(CLI::App* command, kernels::KvType* cache);
std::string CacheName(kernels::KvType cache);

// --threads N, 0: all processors; at most kMaxThreads.
inline constexpr int kMaxThreads = 1024;
template <class T>
void AddThreadsOption(CLI::App* command, T* threads) {
  command->add_option("--threads", *threads, "0: all processors")
      ->check(CLI::Range(0, kMaxThreads))
      ->capture_default_str();
}

// The model, with SetActivations. Throws as LoadModel does.
engine::ModelWeights LoadWeights(const std::string& path, engine::CodeActivations activations);

}  // namespace tern::engine_cli
