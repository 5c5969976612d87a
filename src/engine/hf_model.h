// A model from a Hugging Face folder: BitNetForCausalLM (packed; both meanings of weight_scale),
// Llama-, Mistral-, Qwen2- and Qwen3ForCausalLM, packed ternary, compressed-tensors (int4, int8,
// FP8), blockwise FP8 or dense. 16-bit and quantized matrices stay in the files. Which meaning
// holds is decided by quantization_config.linear_class and said aloud.
#pragma once

#include <string>

#include "engine/model_weights.h"

namespace tern::engine {

// Reads config.json, model.safetensors (or its shards) and tokenizer.model. Throws InputError,
// FormatError (file, key or tensor, found, wanted), also for what would make another model of it: a
// linear_class it does not know, a scaling of RoPE other than linear and llama3, tensors that have
// no place, NaN.
ModelWeights LoadHfFolder(const std::string& folder);

// Any model path: a GGUF file or a Hugging Face folder.
ModelWeights LoadModel(const std::string& path);

}  // namespace tern::engine
