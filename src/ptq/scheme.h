// What `tern quantize --to` can ask for, and how it lies in a compressed-tensors folder
// (docs/formats/compressed_tensors.md): the weights' format, the rule for activations that the
// engine follows, and the name of the layout.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "quant/weight_format.h"

namespace tern::ptq {

struct Scheme {
  std::string name;    // "int4"
  std::string layout;  // "pack-quantized": compressed-tensors' `format`
  quant::WeightFormat weights;
  bool quantizes_activations = false;  // A scale a token, of the weights' element type, at run time
};

// `group`: columns that share a scale, 0 for rows; -1: the scheme's own, for integers 128 or the
// largest of 64 and 32 that divides every row. Throws UsageError for a name that is none or a group
// for a scheme that has its own, InputError when rows do not divide.
Scheme SchemeByName(const std::string& name, int64_t group, const ModelConfig& config);
std::string SchemeNames();  // "int4, int4_asym, ...", for help texts

// quantization_config of config.json. `ignore`: modules that stay floats.
nlohmann::json QuantizationConfig(const Scheme& scheme, const std::vector<std::string>& ignore);

}  // namespace tern::ptq
