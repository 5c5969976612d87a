// What a decoder is, without any tensor: widths, heads, norms, which linear layers are ternary.
// Read by the recipe, the trainer, the exporters, the planner and the engine. One concept of
// "model" for all of them.
//
// Layer (x_BTD): h = x + Wo(attn_sub_norm?(Attention(RoPE(qk_norm?(Wq n1)), RoPE(qk_norm?(Wk n1)),
// Wv n1))), n1 = norm(x); y = h + Wdown(ffn_sub_norm?(act(Wgate n2) * Wup n2)), n2 = norm(h). Norms
// are RMSNorm with a learned gain; q, k and v may have biases. Sub-norms stand where BitNet
// b1.58-2B-4T has them (arXiv 2504.12285). The head and the embedding are never ternary.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "arch/rope_scaling.h"

namespace tern {

enum class Activation { kSilu, kRelu2 };       // relu2: max(x, 0)^2, as 2B-4T.
enum class LinearKind { kDense, kBitLinear };  // BitLinear: W1.58A8 (arXiv 2402.17764).

struct ModelConfig {
  int64_t vocab_size = 0;         // V
  int64_t hidden_size = 0;        // D
  int64_t intermediate_size = 0;  // F
  int64_t num_layers = 0;         // L
  int64_t num_heads = 0;          // H
  int64_t num_kv_heads = 0;       // J; divides H
  int64_t head_dim = 0;           // E; 0 means D / H
  int64_t context_length = 0;     // Longest sequence that RoPE and the exported files allow, tokens
  float rope_theta = 10000.0f;
  float norm_eps = 1e-5f;
  Activation activation = Activation::kSilu;
  LinearKind linear = LinearKind::kBitLinear;
  bool sub_norms = true;   // attn_sub_norm and ffn_sub_norm before o_proj and down_proj
  bool qk_norm = false;    // RMSNorm over each head of q and k (Qwen3)
  bool qkv_bias = false;   // q, k and v have a bias each (Qwen2)
  bool tied_head = true;   // The head is the embedding
  float init_std = 0.02f;  // Normal initialisation of every matrix
  RopeScaling rope_scaling;

  int64_t HeadDim() const { return head_dim != 0 ? head_dim : hidden_size / num_heads; }
  bool operator==(const ModelConfig&) const = default;
};

// Throws RecipeError that names the field, its value and the rule it breaks (divisibility, ranges).
void ValidateModelConfig(const ModelConfig& config);

// What a parameter is, which decides its initialisation, weight decay, quantization and place in
// exported files.
enum class ParameterRole { kEmbedding, kHead, kLinear, kNorm, kBias };

struct ParameterSpec {
  std::string name;            // Hugging Face name, e.g. "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // [N, K] of matrices, [D] of norms and biases
  ParameterRole role;
  int64_t Count() const;
};

// Every parameter in a fixed order (embedding, layers, final norm, head). The order is part of the
// checkpoint format.
std::vector<ParameterSpec> ParameterTable(const ModelConfig& config);
int64_t CountParameters(const ModelConfig& config);

// The architecture that each world would call this shape, or why none fits: design rules of Hugging
// Face transformers and mainline llama.cpp (docs/formats/architectures.md).
enum class ArchName { kLlama, kQwen2, kQwen3, kBitnet, kBitnet158, kNone };
struct ArchChoice {
  ArchName name = ArchName::kNone;
  std::string reason;  // Why this one; for kNone, what does not fit and what to change.
};
ArchChoice ChooseGgufArch(const ModelConfig& config);
ArchChoice ChooseHfArch(const ModelConfig& config);

// Empty when `format` (e.g. "gguf/tq2_0", "hf/bitnet") can hold this model; else the reason and the
// formats that can.
std::string WhyFormatCannotHold(const ModelConfig& config, std::string_view format);

std::string_view ToString(Activation activation);
std::string_view ToString(LinearKind linear);

}  // namespace tern
