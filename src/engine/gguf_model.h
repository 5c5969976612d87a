// A model in a GGUF file: architectures llama, qwen2, qwen3, bitnet (mainline, SiLU) and
// bitnet-b1.58 (squared ReLU).
#pragma once

#include <memory>
#include <string>

#include "engine/model_source.h"

namespace tern::engine {

// Ternary matrices (TQ1_0, TQ2_0) become T2 exactly; the scale is the tensor `<name>.scale` times
// the blocks' d. All other types that are read as floats are dense: F32 as a copy, the others as
// they are in the file, which stays mapped. Without the key tern.activation a
// ternary file runs with float activations, and a message says so. Throws InputError, FormatError
// (file, key or tensor, found, wanted), also for what would make another model of it: tensors and
// keys that have no place, scalings of RoPE other than linear and the tensor rope_freqs.weight,
// blocks of one matrix with different scales, NaN.
std::unique_ptr<ModelSource> OpenGguf(const std::string& path);

}  // namespace tern::engine
