// A quantized matrix as the tensors of a compressed-tensors folder
// (docs/formats/compressed_tensors.md).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ptq/scheme.h"
#include "quant/weight_quantizer.h"

namespace tern::ptq {

struct NamedTensor {
  std::string name, dtype;  // dtype word of safetensors
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
};

// `parameter`: "model.layers.0.self_attn.q_proj.weight".
std::vector<NamedTensor> PackLinear(const std::string& parameter, const quant::QuantizedWeight& w,
                                    const Scheme& scheme);

// Values in BF16, to the nearest.
NamedTensor PackBf16(const std::string& name, const std::vector<int64_t>& shape,
                     const float* values);

}  // namespace tern::ptq
