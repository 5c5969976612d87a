// Mistakes that every engine loads without a word and computes another model from
// (docs/quantize.md). Each check reads the raw tensors and keys itself, not through the engine's
// readers, and throws NumericError that names the matrix. They hold for files of any program.
#pragma once

#include <string>

#include "arch/model_config.h"

namespace tern::ptq {

// Of a folder: zero points of symmetric GPTQ that are not those of its checkpoint_format (v1 stores
// them less one); NVFP4 matrices that engines fuse (q, k, v; gate, up) with unequal global scales;
// ternary scales that only make sense the other way round (linear_class: bitlinear divides by
// weight_scale, autobitlinear multiplies). Returns how many checks applied. A GGUF file has none.
int CheckTraps(const std::string& output);

// What the output says of itself against its source: squared ReLU that mainline llama.cpp's bitnet
// runs as SiLU, rotary base, heads, widths. Throws NumericError (field, found, wanted).
void CheckConfig(const ModelConfig& found, const ModelConfig& source, const std::string& output);

}  // namespace tern::ptq
