// What `tern quantize --to` can ask for, and how it lies in a Hugging Face folder: the weights'
// format, the rule for activations that the engine follows, and the container, compressed-tensors
// (docs/formats/compressed_tensors.md) unless another is named, GPTQ and AWQ
// (docs/formats/gptq_awq.md), or the blockwise FP8 of Hugging Face.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "quant/weight_format.h"

namespace tern::ptq {

enum class Container { kCompressedTensors, kGptq, kGptqV2, kAwq, kFp8 };

struct Scheme {
  std::string name;    // "int4"
  std::string layout;  // "pack-quantized": compressed-tensors' `format`
  quant::WeightFormat weights;
  bool quantizes_activations = false;  // A scale a token, of the weights' element type, at run time
  bool static_activations = false;  // One scale for all tokens, from the calibration, in the file
  Container container = Container::kCompressedTensors;

  // GPTQ and AWQ kernels compute in fp16, with fp16 scales; the rest of those folders is fp16, too.
  bool IsHalf() const;
  // "float16" or "bfloat16": what is not quantized
  const char* float_dtype() const { return IsHalf() ? "float16" : "bfloat16"; }
  // Stored bits a weight of an [n, k] matrix. GPTQ and AWQ have zero points even when they are all
  // the middle code.
  double BitsPerWeight(int64_t n, int64_t k) const;
};

// `group`: columns that share a scale, 0 for rows; -1: the scheme's own, for integers 128 or the
// largest of 64 and 32 that divides every row. Throws UsageError for a name that is none or a group
// for a scheme that has its own, or a container that cannot hold the scheme; InputError when rows
// do not divide. `container`: "" is compressed-tensors.
Scheme SchemeByName(const std::string& name, int64_t group, const ModelConfig& config,
                    const std::string& container = "");
std::string SchemeNames();     // "int4, int4_asym, ...", for help texts
std::string ContainerNames();  // "compressed-tensors, gptq, ..."

// quantization_config of config.json. `ignore`: modules that stay floats.
nlohmann::json QuantizationConfig(const Scheme& scheme, const std::vector<std::string>& ignore);

// Of every quantized matrix, by parameter name.
using SchemeMap = std::map<std::string, Scheme>;
// The same of several schemes in a folder of compressed-tensors: a group for each, which names its
// modules; one scheme is as above. REQUIRES: not empty.
nlohmann::json QuantizationConfig(const SchemeMap& schemes, const std::vector<std::string>& ignore);

}  // namespace tern::ptq
