// The mixtures of block types that llama.cpp's users ask for by name: which type each matrix gets
// (llama-quant.cpp's rules: values and FFN outputs get more bits, most of all in the first and last
// eighths of the layers), and what a type becomes when rows do not divide into its blocks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "arch/model_config.h"
#include "formats/block_codec.h"

namespace tern::ptq {

struct GgufMix {
  std::string name;        // "q4_k_m"
  formats::GgmlType base;  // Of most matrices
  uint32_t file_type;      // llama_ftype
};

std::optional<GgufMix> GgufMixByName(const std::string& name);
std::string GgufMixNames();  // "q2_k, q3_k_s, ...", for help texts

struct GgufTypeChoice {
  formats::GgmlType type;
  std::string fallback;  // Not empty: why it is not the mixture's type
};

struct GgufMixOptions {
  bool pure = false;        // The base type for all of them
  bool importance = false;  // There is an importance matrix
};
// Of a matrix of ParameterTable.
GgufTypeChoice ChooseGgufType(const GgufMix& mix, const ParameterSpec& spec,
                              const ModelConfig& config, const GgufMixOptions& options = {});

}  // namespace tern::ptq
