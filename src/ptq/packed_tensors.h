// A quantized matrix as the tensors of a folder: compressed-tensors and blockwise FP8
// (docs/formats/compressed_tensors.md), GPTQ and AWQ (pack_gptq.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ptq/float_model.h"
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

// The static scale of a matrix's inputs, of which `amax` is the largest: weight_scale's sibling.
NamedTensor PackInputScale(const std::string& parameter, float amax);

// What is not quantized, in the scheme's float type, to the nearest. Throws NumericError (name)
// for a value beyond fp16.
NamedTensor PackFloats(const std::string& name, const std::vector<int64_t>& shape,
                       const float* values, const Scheme& scheme);
// A parameter of the model, read a few rows at a time (FloatModel::ReadRows).
NamedTensor PackParameter(FloatModel* model, const ParameterSpec& spec, const Scheme& scheme);
// The same values as fp32, contiguous: what the folder gives back.
at::Tensor AsStored(const at::Tensor& value, const Scheme& scheme);

}  // namespace tern::ptq
