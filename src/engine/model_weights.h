// A model as the engine holds it: configuration, packed weights, tokenizer. Read from GGUF or
// Hugging Face folders (gguf_model.h, hf_model.h); both readers give the same weights for files
// made from one checkpoint.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "arch/model_config.h"
#include "base/huge_pages.h"
#include "engine/block_matrix.h"
#include "engine/code_activations.h"
#include "engine/int4_matrix.h"
#include "engine/scaled_matrix.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tern::engine {

// Ternary weights in T2 (kernels/ternary_pack/t2.h) with one scale a matrix.
struct TernaryMatrix {
  HugePageVector<uint8_t> t2;  // [n, T2RowBytes(k)]
  float scale = 1;             // beta
  int64_t n = 0, k = 0;
};

// Dense weights that are fp32 already, or small.
struct DenseMatrix {
  std::vector<float> values;  // [n, k]
  int64_t n = 0, k = 0;
};

using TableMatrix = std::variant<DenseMatrix, BlockMatrix>;
using LinearMatrix =
    std::variant<TernaryMatrix, DenseMatrix, BlockMatrix, ScaledMatrix, Int4Matrix>;

struct LayerWeights {
  // Norms; empty: not there. *_in: of a matrix's own inputs (arch/model_config.h, SubNorms).
  std::vector<float> input_norm, post_norm, q_norm, k_norm;
  std::vector<float> q_in, k_in, v_in, o_in, gate_in, up_in, down_in;
  std::vector<float> q_bias, k_bias, v_bias;  // Empty: not there
  LinearMatrix q, k, v, o, gate, up, down;
};

// How a ternary layer treats its inputs.
enum class ActivationRule {
  kInt8Token,  // W1.58A8: absmax int8 a token, integer product
  kNone,       // Float activations (a foreign ternary file without the key tern.activation)
};

struct ModelWeights {
  ModelConfig config;
  ActivationRule activation = ActivationRule::kInt8Token;
  CodeActivations code_activations = CodeActivations::kInt16;  // weight_table.h: SetActivations
  TableMatrix embedding;                                       // [V, D], the file's own values
  std::optional<TableMatrix> head;                             // Absent: tied to the embedding
  std::vector<float> final_norm;
  std::vector<LayerWeights> layers;
  std::optional<text::Tokenizer> tokenizer;  // Absent when the file has none
  std::vector<int32_t> stop_tokens;  // That end a text beside the tokenizer's EOS (stop_tokens.h)
  std::optional<text::ChatTemplate> chat_template;  // Absent when the file has none
  std::string source;                               // Path, for messages

  // REQUIRES: a tokenizer.
  bool EndsText(int32_t id) const {
    return id == tokenizer->eos_id() ||
           std::find(stop_tokens.begin(), stop_tokens.end(), id) != stop_tokens.end();
  }
};

}  // namespace tern::engine
