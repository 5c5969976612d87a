// Tiny Llama folders with quantized linear layers: random codes, scales and zero points, packed
// here by 32-bit arithmetic, and the model they stand for, computed from the codes in fp64.
#pragma once

#include <cmath>

#include "formats/half.h"
#include "tests/engine/raw_folder.h"
#include "tests/engine/tiny_files.h"

namespace tern::testing {

struct ScaledKind {
  std::string name;               // Of the test
  std::string code;               // int4, int8, fp8
  std::string strategy;           // tensor, channel, group, block
  int64_t rows = 1, columns = 0;  // That share a scale; 0: all
  bool asymmetric = false;
  std::string scales = "F32";
  std::string method = "compressed-tensors";
};

// Sizes that fill no word and no block: K of 60, 92 and 24, N of 6 to 92.
inline ModelConfig ScaledConfig() {
  ModelConfig c = TinyConfig(ArchName::kLlama, LinearKind::kDense);
  c.hidden_size = 60;
  c.intermediate_size = 92;
  c.num_heads = 4;
  c.num_kv_heads = 1;
  c.head_dim = 6;
  c.num_layers = 1;
  return c;
}

// By the definition of the format: sign, exponent with bias 7, mantissa of 3 bits.
inline double Fp8Value(int code) {
  const int exponent = code / 8 % 16, mantissa = code % 8;
  const double size =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(1 + mantissa / 8.0, exponent - 7);
  return code >= 128 ? -size : size;
}

class ScaledFolder {
 public:
  explicit ScaledFolder(const ScaledKind& kind, const ModelConfig& config = ScaledConfig())
      : model(MakeTinyModel(config, 101)), kind_(kind), random_(102, "codes") {
    folder.config = HfConfig(model.config, "");
    folder.config["quantization_config"] = Quantization();
    for (const ParameterSpec& spec : ParameterTable(model.config)) {
      if (spec.role == ParameterRole::kLinear) {
        AddLinear(spec);
      } else {
        folder.tensors[spec.name] = MakeRaw("F32", spec.shape, model.floats.at(spec.name));
      }
    }
  }

  TinyModel model;  // Linear layers: the decoded values
  RawFolder folder;

 private:
  nlohmann::json Quantization() const {
    if (kind_.method == "fp8") {
      return {{"quant_method", "fp8"},
              {"activation_scheme", "dynamic"},
              {"weight_block_size", {kind_.rows, kind_.columns}}};
    }
    const bool int4 = kind_.code == "int4", fp8 = kind_.code == "fp8";
    nlohmann::json weights = {{"num_bits", int4 ? 4 : 8},
                              {"type", fp8 ? "float" : "int"},
                              {"symmetric", !kind_.asymmetric},
                              {"strategy", kind_.strategy}};
    if (kind_.strategy == "group") weights["group_size"] = kind_.columns;
    if (kind_.strategy == "block") weights["block_structure"] = {kind_.rows, kind_.columns};
    const char* format = int4 ? "pack-quantized" : fp8 ? "float-quantized" : "int-quantized";
    return {{"quant_method", "compressed-tensors"},
            {"format", format},
            {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", weights}}}}}};
  }

  // Numbers of the scale's type, as bits and as values.
  RawTensor Scales(const std::vector<int64_t>& shape, size_t count, std::vector<double>* values) {
    std::vector<float> full;
    std::vector<uint16_t> half;
    for (size_t i = 0; i < count; ++i) {
      const float scale = 0.001f + 0.02f * random_.NextUniform();
      full.push_back(scale);
      const bool f16 = kind_.scales == "F16";
      half.push_back(f16 ? formats::Fp32ToFp16(scale) : formats::Fp32ToBf16(scale));
      values->push_back(kind_.scales == "F32" ? scale
                        : f16                 ? formats::Fp16ToFp32(half.back())
                                              : formats::Bf16ToFp32(half.back()));
    }
    return kind_.scales == "F32" ? MakeRaw("F32", shape, full) : MakeRaw(kind_.scales, shape, half);
  }

  void AddLinear(const ParameterSpec& spec) {
    const int64_t n = spec.shape[0], k = spec.shape[1];
    const int64_t block_n = kind_.rows > 0 ? kind_.rows : n;
    const int64_t block_k = kind_.columns > 0 ? kind_.columns : k;
    const int64_t down = (n + block_n - 1) / block_n, across = (k + block_k - 1) / block_k;
    const std::string base = spec.name.substr(0, spec.name.size() - 6);
    const bool whole = kind_.strategy == "tensor";
    std::vector<double> scale;
    folder.tensors[base + (kind_.method == "fp8" ? "weight_scale_inv" : "weight_scale")] =
        Scales(whole ? std::vector<int64_t>{1} : std::vector<int64_t>{down, across},
               static_cast<size_t>(down * across), &scale);
    std::vector<int> zero(static_cast<size_t>(down * across));
    if (kind_.asymmetric) {
      for (int& z : zero) z = static_cast<int>(random_.NextU64() % 16) - 8;
      AddZeroPoints(base, n, across, zero);
    }
    const int64_t words_a_row = (k + 7) / 8;
    std::vector<uint32_t> words(static_cast<size_t>(n * words_a_row));
    std::vector<uint8_t> bytes;
    std::vector<float>& values = model.floats.at(spec.name);
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t i = 0; i < k; ++i) {
        const auto at = static_cast<size_t>(row / block_n * across + i / block_k);
        int code = static_cast<int>(random_.NextU64() % 256);
        double value;
        if (kind_.code == "int4") {
          code %= 16;
          words[static_cast<size_t>(row * words_a_row + i / 8)] |= static_cast<uint32_t>(code)
                                                                   << (4 * (i % 8));
          value = code - 8 - zero[at];
        } else if (kind_.code == "int8") {
          value = code < 128 ? code : code - 256;
        } else {
          if (code % 128 == 127) code -= 1;  // NaN
          value = Fp8Value(code);
        }
        bytes.push_back(static_cast<uint8_t>(code));
        values[static_cast<size_t>(row * k + i)] = static_cast<float>(value * scale[at]);
      }
    }
    if (kind_.code == "int4") {
      folder.tensors[base + "weight_packed"] = MakeRaw("I32", {n, words_a_row}, words);
      folder.tensors[base + "weight_shape"] = MakeRaw<int64_t>("I64", {2}, {n, k});
    } else {
      folder.tensors[base + "weight"] =
          MakeRaw(kind_.code == "int8" ? "I8" : "F8_E4M3", {n, k}, bytes);
    }
  }

  // Down the rows: row r is bits 4 (r % 8) and up of word r / 8 of its column.
  void AddZeroPoints(const std::string& base, int64_t n, int64_t across,
                     const std::vector<int>& zero) {
    std::vector<uint32_t> words(static_cast<size_t>((n + 7) / 8 * across));
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t c = 0; c < across; ++c) {
        const int stored = zero[static_cast<size_t>(row * across + c)] + 8;
        words[static_cast<size_t>(row / 8 * across + c)] |= static_cast<uint32_t>(stored)
                                                            << (4 * (row % 8));
      }
    }
    folder.tensors[base + "weight_zero_point"] = MakeRaw("I32", {(n + 7) / 8, across}, words);
  }

  ScaledKind kind_;
  RandomStream random_;
};

}  // namespace tern::testing
