// ModelConfig as JSON, as checkpoints, model files and reports store it: every field under its own
// name, enums as words; qkv_bias, rope_scaling and attention_windows only where a model has them.
#pragma once

#include <nlohmann/json.hpp>

#include "arch/model_config.h"

namespace tern {

nlohmann::json ToJson(const ModelConfig& config);
// Throws FormatError that names the field when one is missing, unknown, or of another type.
ModelConfig ModelConfigFromJson(const nlohmann::json& json);

}  // namespace tern
