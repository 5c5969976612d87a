// Files of a tiny model, written by the tests themselves: GGUF with the rows of llama's q and k in
// pairs, and Hugging Face folders with both meanings of weight_scale. Each option makes one file
// that differs from a right one in one point.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "arch/gguf_names.h"
#include "base/file.h"
#include "formats/gguf.h"
#include "formats/half.h"
#include "formats/hf_bitnet.h"
#include "formats/i2_s.h"
#include "formats/safetensors.h"
#include "tests/engine/tiny_model.h"
#include "text/tokenizer.h"

namespace tern::testing {

// Matrices by parameter name as bytes of block types, for types that tern does not write. Rows are
// in the model's order.
struct TinyBlockMatrix {
  formats::GgmlType type;
  std::vector<uint8_t> bytes;
};
using TinyBlocks = std::map<std::string, TinyBlockMatrix>;

struct GgufOptions {
  formats::GgmlType linear = formats::GgmlType::kTq2_0, table = formats::GgmlType::kF32;
  std::optional<std::string> activation = "int8_token";
  const text::PieceTable* tokenizer = nullptr;
  std::set<std::string> leave_out;                // Tensors
  std::function<void(formats::GgufWriter&)> add;  // More keys and tensors
  std::function<void(ModelConfig&)> lie;          // The keys then say another model
  const TinyBlocks* blocks = nullptr;             // Instead of the values of these parameters
};

// The model's row at row `row` of the file: pairs (i, i + E/2) of a head stand side by side.
inline int64_t ModelRow(int64_t row, int64_t head_dim, bool paired) {
  const int64_t within = row % head_dim;
  return paired ? row - within + within / 2 + within % 2 * (head_dim / 2) : row;
}

inline void AddGgufKeys(const ModelConfig& c, const std::string& arch,
                        formats::GgufWriter* writer) {
  const auto add = [&](const char* key, int64_t value) {
    writer->AddU32(arch + "." + key, static_cast<uint32_t>(value));
  };
  add("context_length", c.context_length);
  add("embedding_length", c.hidden_size);
  add("feed_forward_length", c.intermediate_size);
  add("block_count", c.num_layers);
  add("attention.head_count", c.num_heads);
  add("attention.head_count_kv", c.num_kv_heads);
  add("attention.key_length", c.HeadDim());
  add("attention.value_length", c.HeadDim());
  writer->AddF32(arch + ".attention.layer_norm_rms_epsilon", c.norm_eps);
  writer->AddF32(arch + ".rope.freq_base", c.rope_theta);
}

inline void AddGgufTokenizer(const text::PieceTable& table, formats::GgufWriter* writer) {
  std::vector<int32_t> types;
  for (const text::PieceType type : table.types) types.push_back(static_cast<int32_t>(type));
  writer->AddString("tokenizer.ggml.model", "llama");
  writer->AddStrings("tokenizer.ggml.tokens", table.pieces);
  writer->AddF32s("tokenizer.ggml.scores", table.scores);
  writer->AddI32s("tokenizer.ggml.token_type", types);
  writer->AddBool("tokenizer.ggml.add_space_prefix", table.add_space_prefix);
}

// row_of(row): the model's row at a row of the file. `w` must live until the file is written.
inline void AddI2s(const std::string& name, const ParameterSpec& spec, const TinyTernary& w,
                   const std::function<int64_t(int64_t)>& row_of, formats::GgufWriter* writer) {
  const int64_t n = spec.shape[0], k = spec.shape[1];
  std::vector<int8_t> codes;
  for (int64_t row = 0; row < n; ++row) {
    const auto begin = w.codes.begin() + row_of(row) * k;
    codes.insert(codes.end(), begin, begin + k);
  }
  const std::vector<uint8_t> bytes = formats::PackI2s(codes, n, k, w.beta);
  writer->AddTensor(name, formats::GgmlType::kI2_S, spec.shape,
                    [bytes](int64_t, uint8_t* out) { std::copy(bytes.begin(), bytes.end(), out); });
}

// `model` must live until it returns.
inline void WriteGguf(const TinyModel& model, ArchName arch, const std::string& path,
                      const GgufOptions& options = {}) {
  const std::string arch_name = GgufArchName(arch);
  formats::GgufWriter writer(arch_name);
  ModelConfig said = model.config;
  if (options.lie) options.lie(said);
  AddGgufKeys(said, arch_name, &writer);
  if (options.activation) writer.AddString(kActivationKey, *options.activation);
  if (options.tokenizer != nullptr) AddGgufTokenizer(*options.tokenizer, &writer);
  for (const ParameterSpec& spec : ParameterTable(model.config)) {
    const std::string name = GgufName(spec.name);
    const bool paired = arch == ArchName::kLlama && (spec.name.ends_with("q_proj.weight") ||
                                                     spec.name.ends_with("k_proj.weight"));
    const int64_t k = spec.shape.back(), e = model.config.HeadDim();
    const auto ternary = model.ternary.find(spec.name);
    if (ternary != model.ternary.end()) {
      const TinyTernary& w = ternary->second;
      if (options.linear == formats::GgmlType::kI2_S) {
        AddI2s(
            name, spec, w, [=](int64_t row) { return ModelRow(row, e, paired); }, &writer);
        continue;
      }
      if (!options.leave_out.contains(name)) {
        writer.AddTensor(name, options.linear, spec.shape, [=, &w](int64_t row, uint8_t* out) {
          formats::EncodeTernaryRow(options.linear, w.codes.data() + ModelRow(row, e, paired) * k,
                                    k, out);
        });
      }
      if (!options.leave_out.contains(ScaleName(name))) {
        writer.AddTensor(ScaleName(name), formats::GgmlType::kF32, {1},
                         [&w](int64_t, uint8_t* out) {
                           formats::EncodeRow(formats::GgmlType::kF32, &w.beta, 1, out);
                         });
      }
      continue;
    }
    if (options.leave_out.contains(name)) continue;
    if (options.blocks != nullptr && options.blocks->contains(spec.name)) {
      const TinyBlockMatrix& matrix = options.blocks->at(spec.name);
      const int64_t size = formats::RowBytes(matrix.type, k);
      writer.AddTensor(name, matrix.type, spec.shape, [=, &matrix](int64_t row, uint8_t* out) {
        std::copy_n(matrix.bytes.data() + ModelRow(row, e, paired) * size, size, out);
      });
      continue;
    }
    const std::vector<float>& values = model.floats.at(spec.name);
    formats::GgmlType type = options.table;
    if (spec.role == ParameterRole::kNorm || spec.role == ParameterRole::kBias)
      type = formats::GgmlType::kF32;
    if (spec.role == ParameterRole::kLinear) type = options.linear;
    writer.AddTensor(name, type, spec.shape, [=, &values](int64_t row, uint8_t* out) {
      formats::EncodeRow(type, values.data() + ModelRow(row, e, paired) * k, k, out);
    });
  }
  if (options.add) options.add(writer);
  writer.Write(path);
}

struct HfOptions {
  std::string linear_class = "bitlinear";  // weight_scale divides; autobitlinear: it multiplies
  std::function<void(nlohmann::json&)> change_config;
  std::set<std::string> leave_out;
  bool extra_bias = false;
};

// Of a qwen2 model of two layers, the second of which slides over 3 tokens.
inline HfOptions SlidingQwen2() {
  HfOptions options;
  options.change_config = [](nlohmann::json& config) {
    config.update({{"model_type", "qwen2"},
                   {"use_sliding_window", true},
                   {"sliding_window", 3},
                   {"layer_types", {"full_attention", "sliding_attention"}}});
  };
  return options;
}

inline nlohmann::json HfConfig(const ModelConfig& c, const std::string& linear_class) {
  const char* type = c.sub_norms == SubNorms::kOutputs ? "bitnet" : c.qk_norm ? "qwen3" : "llama";
  nlohmann::json config = {{"model_type", type},
                           {"vocab_size", c.vocab_size},
                           {"hidden_size", c.hidden_size},
                           {"intermediate_size", c.intermediate_size},
                           {"num_hidden_layers", c.num_layers},
                           {"num_attention_heads", c.num_heads},
                           {"num_key_value_heads", c.num_kv_heads},
                           {"head_dim", c.HeadDim()},
                           {"max_position_embeddings", c.context_length},
                           {"rms_norm_eps", c.norm_eps},
                           {"rope_theta", c.rope_theta},
                           {"hidden_act", c.activation == Activation::kSilu ? "silu" : "relu2"},
                           {"tie_word_embeddings", c.tied_head}};
  if (c.linear == LinearKind::kBitLinear) {
    config["quantization_config"] = {{"quant_method", "bitnet"},
                                     {"linear_class", linear_class},
                                     {"quantization_mode", "offline"},
                                     {"use_rms_norm", c.HasInputNorms()},
                                     {"rms_norm_eps", c.norm_eps}};
  }
  return config;
}

inline void WriteHfFolder(const TinyModel& model, const std::string& folder,
                          const HfOptions& options = {}) {
  MakeFolders(folder);
  nlohmann::json config = HfConfig(model.config, options.linear_class);
  if (options.change_config) options.change_config(config);
  WriteFileAtomically(folder + "/config.json", config.dump(2));
  formats::SafetensorsWriter writer;
  std::deque<std::vector<uint8_t>> packed;
  std::deque<float> scales;
  for (const ParameterSpec& spec : ParameterTable(model.config)) {
    if (options.leave_out.contains(spec.name)) continue;
    const auto ternary = model.ternary.find(spec.name);
    if (ternary == model.ternary.end()) {
      writer.Add(spec.name, "F32", spec.shape, model.floats.at(spec.name).data());
      continue;
    }
    const int64_t n = spec.shape[0], k = spec.shape[1];
    const float beta = ternary->second.beta;
    packed.push_back(formats::PackHfBitnet(ternary->second.codes, n, k));
    scales.push_back(options.linear_class == "bitlinear" ? 1.0f / beta : beta);
    writer.Add(spec.name, "U8", {n / 4, k}, packed.back().data());
    writer.Add(spec.name + "_scale", "F32", {1}, &scales.back());
  }
  const std::vector<float> bias(static_cast<size_t>(model.config.hidden_size));
  if (options.extra_bias) {
    writer.Add("model.layers.0.self_attn.o_proj.bias", "F32", {model.config.hidden_size},
               bias.data());
  }
  writer.Write(folder + "/model.safetensors");
}

}  // namespace tern::testing
