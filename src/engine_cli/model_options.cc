// See model_options.h.
#include "engine_cli/model_options.h"

#include <map>

#include "base/error.h"
#include "engine/model_source.h"
#include "engine/weight_table.h"

namespace tern::engine_cli {

void AddExactOption(CLI::App* command, bool* exact) {
  command->add_flag("--exact", *exact,
                    "Decode weights of 2 to 6 bits to fp32: products of floats instead of 16-bit "
                    "activations; more memory and time");
}

void CheckExact(bool exact, const std::string& device) {
  if (exact)
    throw UsageError(StrCat("--exact is for --device cpu, not ", device, "; leave it out"));
}

void AddCacheOption(CLI::App* command, kernels::KvType* cache) {
  static const std::map<std::string, kernels::KvType> kTypes = {{"f32", kernels::KvType::kF32},
                                                                {"f16", kernels::KvType::kF16},
                                                                {"int8", kernels::KvType::kInt8}};
  CLI::Option* option =
      command
          ->add_option("--cache", *cache, "Numbers of keys and values: f32 (as trained), f16, int8")
          ->transform(CLI::CheckedTransformer(kTypes));
  for (const auto& [name, type] : kTypes)
    if (type == *cache) option->default_str(name);
}

engine::ModelWeights LoadWeights(const std::string& path, bool exact) {
  engine::ModelWeights weights = engine::LoadModel(path);
  if (exact) engine::DecodeToFloat(&weights);
  return weights;
}

}  // namespace tern::engine_cli
