// quantization_config of a Hugging Face folder: how its linear layers are stored. bitnet (both
// meanings of weight_scale, and latents that are quantized when they run), compressed-tensors with
// integers in words, NVFP4, MXFP4, 8-bit integers and FP8, the blockwise FP8 of quant_method fp8
// (docs/formats/compressed_tensors.md), GPTQ and AWQ (docs/formats/gptq_awq.md).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/scaled_matrix.h"

namespace tern::engine {

// How the weights of a group of layers are stored (a config_group of compressed-tensors).
struct ScaledScheme {
  ScaledCode code;
  bool symmetric = true;             // Else every scale has a zero point
  int64_t block_n = 1, block_k = 0;  // Rows and columns that share a scale; 0: all
  // Not kNone: `code` has no meaning, the matrix is decoded when it is read (packed_floats.h; GPTQ,
  // with zero points less one or as they are, and AWQ: gptq_tensors.h).
  enum class Packing { kNone, kBits, kNvfp4, kMxfp4, kGptqV1, kGptqV2, kAwq };
  Packing packing = Packing::kNone;
  int bits = 4;              // Of integers that are decoded
  InputRounding input = {};  // A static scale is beside the weights (input_scale)
  bool static_input = false;
  std::string Describe() const;  // "4-bit integers, a scale for 1 x 128 weights"
};

struct HfQuantization {
  enum class Kind {
    kNone,            // 16- or 32-bit floats
    kBitnetDivide,    // Packed ternary; products are divided by weight_scale (bitlinear)
    kBitnetMultiply,  // ... multiplied (autobitlinear)
    kBitnetLatents,   // 16- or 32-bit latents, to be quantized (quantization_mode online)
    kScaled,          // `schemes`
  };
  Kind kind = Kind::kNone;
  std::vector<ScaledScheme> schemes;
  std::string scale_name = "weight_scale";  // Of kScaled: the tensor beside `weight`

  float own_norm_eps = 0;  // Above 0: each ternary layer has a norm before it, of this epsilon
  std::string reason;      // Of a ternary kind: what decided it

  bool IsPacked() const { return kind == Kind::kBitnetDivide || kind == Kind::kBitnetMultiply; }
  bool IsTernary() const { return IsPacked() || kind == Kind::kBitnetLatents; }
};

// `config` is the whole config.json. What the folder asks of activations is done only when wanted
// (CodeActivations), and a message says so. Throws FormatError (`path`, key, found, wanted) for a
// method, format or scheme that is not read here.
HfQuantization ReadHfQuantization(const nlohmann::json& config, const std::string& path);

// "[3, 4]", for messages.
std::string ShapeText(const std::vector<int64_t>& shape);

}  // namespace tern::engine
