// Matrices of compressed-tensors folders that the engine has no product for: integers of 2, 3 and 5
// to 8 bits in words, NVFP4 and MXFP4. They are decoded to fp32 when they are read, so they take 4
// bytes a weight in memory: to check and to evaluate, not to serve.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "arch/model_config.h"
#include "engine/hf_quantization.h"
#include "engine/model_weights.h"
#include "formats/safetensors.h"

namespace tern::engine {

// Nothing when no scheme of `quantization` is of these kinds or the layer is not packed. Names of
// tensors that have found their place go into `used`. Integers: (q - z) scale; NVFP4: q (scale /
// global); MXFP4: q 2^(e - 127); in fp32. Throws FormatError (`folder`, tensor, found, wanted).
std::optional<DenseMatrix> ReadPackedFloats(const formats::SafetensorsReader& tensors,
                                            const HfQuantization& quantization,
                                            const ParameterSpec& spec, const std::string& folder,
                                            std::set<std::string>* used);

}  // namespace tern::engine
