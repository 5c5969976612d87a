// A ScaledMatrix from the tensors of a Hugging Face folder: codes, scales and zero points of one
// linear layer, by the schemes of its quantization_config.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "arch/model_config.h"
#include "engine/hf_quantization.h"
#include "engine/scaled_matrix.h"
#include "formats/safetensors.h"

namespace tern::engine {

// Nothing when the layer is stored as plain floats. Which scheme a layer has is told by its
// tensors, not by the names that config.json lists: the first one whose shapes are theirs. Names of
// tensors that have found their place go into `used`. The matrix keeps the mapping of `tensors`.
// Throws FormatError (`folder`, tensor, found, wanted) when no scheme fits, for shapes and dtypes
// that are none of the format, for NaN and Inf.
std::optional<ScaledMatrix> ReadScaledMatrix(const formats::SafetensorsReader& tensors,
                                             const HfQuantization& quantization,
                                             const ParameterSpec& spec, const std::string& folder,
                                             std::set<std::string>* used);

}  // namespace tern::engine
