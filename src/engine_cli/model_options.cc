// See model_options.h.
#include "engine_cli/model_options.h"

#include <map>

#include "base/error.h"
#include "engine/model_source.h"
#include "engine/weight_table.h"

namespace tern::engine_cli {

namespace {

// An option that is one of a few names; help shows the name of *value as its default.
template <class T>
void AddChoice(CLI::App* command, const char* option_name, T* value, const char* help,
               const std::map<std::string, T>& names) {
  CLI::Option* option =
      command->add_option(option_name, *value, help)->transform(CLI::CheckedTransformer(names));
  for (const auto& [name, of_name] : names)
    if (of_name == *value) option->default_str(name);
}

const std::map<std::string, kernels::KvType> kCaches = {{"f32", kernels::KvType::kF32},
                                                        {"f16", kernels::KvType::kF16},
                                                        {"int8", kernels::KvType::kInt8}};

}  // namespace

void AddActivationsOption(CLI::App* command, engine::CodeActivations* activations) {
  using engine::CodeActivations;
  AddChoice(
      command, "--activations", activations,
      "What weights of 2 to 8 bits of GGUF files are multiplied with: int16 (8-bit weights: "
      "fp32); int8: faster, a visible error; f32: weights decoded to fp32, more memory and time; "
      "folder: activations rounded as a folder of INT8 or FP8 weights asks, to see what an engine "
      "that does so will give",
      {{"int8", CodeActivations::kInt8},
       {"int16", CodeActivations::kInt16},
       {"folder", CodeActivations::kFolder},
       {"f32", CodeActivations::kFloat}});
}

void CheckActivations(engine::CodeActivations activations, const std::string& device) {
  using engine::CodeActivations;
  if (activations != CodeActivations::kInt16 && activations != CodeActivations::kFolder)
    throw UsageError(StrCat("--activations is for --device cpu, not ", device,
                            ", unless it is folder; leave it out"));
}

void AddCacheOption(CLI::App* command, kernels::KvType* cache) {
  AddChoice(command, "--cache", cache, "Numbers of keys and values: f32 (as trained), f16, int8",
            kCaches);
}

std::string CacheName(kernels::KvType cache) {
  for (const auto& [name, type] : kCaches)
    if (type == cache) return name;
  throw BugError("a cache without a name");
}

engine::ModelWeights LoadWeights(const std::string& path, engine::CodeActivations activations) {
  engine::ModelWeights weights = engine::LoadModel(path);
  engine::SetActivations(activations, &weights);
  return weights;
}

}  // namespace tern::engine_cli
