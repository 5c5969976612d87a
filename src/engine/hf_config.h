// config.json of a Hugging Face folder: which decoder it describes. What is not run here is refused
// by the key that says so.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "arch/model_config.h"

namespace tern::engine {

// What the tensors say, which are read elsewhere.
struct HfTensorFacts {
  LinearKind linear = LinearKind::kDense;
  SubNorms sub_norms = SubNorms::kNone;
};

// model_type bitnet, llama, mistral,
// qwen2 or qwen3. A sliding window shorter than the context shortens the context, in which it
// changes nothing, and a message says so. Throws FormatError
// (`path`, key, found, wanted): a key missing or of another type, an activation, a scaling of RoPE,
// biases or layers that this version does not run, sizes that contradict each other.
ModelConfig ReadHfConfig(const nlohmann::json& json, const std::string& path,
                         const HfTensorFacts& facts);

}  // namespace tern::engine
