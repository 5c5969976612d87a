// Linear layers of GPTQ and AWQ folders (docs/formats/gptq_awq.md), which keep the transpose,
// [inputs, outputs], packed in words. They are decoded to fp32 when they are read: to check and to
// evaluate, not to serve.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "arch/model_config.h"
#include "engine/hf_quantization.h"
#include "engine/model_weights.h"
#include "formats/safetensors.h"

namespace tern::engine {

// Nothing when the folder is of another kind or the layer has no qweight. Values: (q - z) scale in
// fp32. GPTQ's g_idx is used where it is there, so that activation order is read, too. Names of
// tensors that have found their place go into `used`. Throws FormatError (`folder`, tensor, found,
// wanted).
std::optional<DenseMatrix> ReadGptqMatrix(const formats::SafetensorsReader& tensors,
                                          const HfQuantization& quantization,
                                          const ParameterSpec& spec, const std::string& folder,
                                          std::set<std::string>* used);

}  // namespace tern::engine
