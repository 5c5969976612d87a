// A model in a Hugging Face folder: BitNetForCausalLM (packed, with both meanings of weight_scale,
// or as latents), Llama-, Mistral-, Qwen2- and Qwen3ForCausalLM, packed ternary, compressed-tensors
// (int4, int8, FP8), blockwise FP8 or dense; and the first 1.58-bit repositories (1bitLLM). 16-bit
// and quantized matrices stay in the files. Which meaning holds is decided by quantization_config
// and the tensors, and said aloud.
#pragma once

#include <memory>
#include <string>

#include "engine/model_source.h"

namespace tern::engine {

// Reads config.json, model.safetensors (or its shards) and the tokenizer. Throws InputError,
// FormatError (file, key or tensor, found, wanted), also for what would make another model of it: a
// linear_class it does not know, a scaling of RoPE other than linear and llama3, tensors that have
// no place, NaN.
std::unique_ptr<ModelSource> OpenHfFolder(const std::string& folder);

}  // namespace tern::engine
