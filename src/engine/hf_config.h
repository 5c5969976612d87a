// config.json of a Hugging Face folder: which decoder it describes. What is not run here is refused
// by the key that says so.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/model_weights.h"

namespace tern::engine {

struct HfConfig {
  ModelConfig config;
  DecoderExtras extras;
};

// `linear` comes from the quantization, which is read elsewhere. model_type bitnet, llama, mistral,
// qwen2 or qwen3. A sliding window shorter than the context shortens the context, in which it
// changes nothing, and a message says so. Throws FormatError
// (`path`, key, found, wanted): a key missing or of another type, an activation, a scaling of RoPE,
// biases or layers that this version does not run, sizes that contradict each other.
HfConfig ReadHfConfig(const nlohmann::json& json, const std::string& path, LinearKind linear);

}  // namespace tern::engine
