// What a decoder is, without any tensor: widths, heads, norms, which linear layers are ternary.
// Read by the recipe, the trainer, the exporters, the planner and the engine. One concept of
// "model" for all of them.
//
// Layer (x_BTD): h = x + Wo(s(Attention(RoPE(qk_norm?(Wq s(n1))), RoPE(qk_norm?(Wk s(n1))),
// Wv s(n1)))), n1 = norm(x); y = h + Wdown(s(act(Wgate s(n2)) * Wup s(n2))), n2 = norm(h). Norms
// are RMSNorm with a learned gain; q, k and v may have biases. Where a norm s of each linear
// layer's own stands: SubNorms. The head and the embedding are never ternary.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "arch/rope_scaling.h"

namespace tern {

enum class Activation { kSilu, kRelu2 };       // relu2: max(x, 0)^2, as 2B-4T.
enum class LinearKind { kDense, kBitLinear };  // BitLinear: W1.58A8 (arXiv 2402.17764).

// RMSNorms right before linear layers, and whether those before attention and FFN (pre-norms)
// stand beside them. Four placements are in use:
enum class SubNorms {
  kNone,         // Pre-norms alone: LLaMA, and ternary models made of it (Falcon-E)
  kOutputs,      // Before o_proj and down_proj: b1.58-2B-4T (arXiv 2504.12285), BitDistill's text
  kEveryLinear,  // Before each of the seven, behind the pre-norms: BitDistill's code
  kEveryLinearOnly,  // Before each of the seven, no pre-norms: "The Era of 1-bit LLMs: Training
                     // Tips"
};

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
  SubNorms sub_norms = SubNorms::kOutputs;
  bool qk_norm = false;    // RMSNorm over each head of q and k (Qwen3)
  bool qkv_bias = false;   // q, k and v have a bias each (Qwen2)
  bool tied_head = true;   // The head is the embedding
  float init_std = 0.02f;  // Normal initialisation of every matrix
  RopeScaling rope_scaling;
  // Sliding attention, one number a layer: a token sees this many tokens, itself included; 0: all
  // that are before it. Empty: all layers see all. Only the engine computes it.
  std::vector<int64_t> attention_windows;

  int64_t HeadDim() const { return head_dim != 0 ? head_dim : hidden_size / num_heads; }
  bool HasPreNorms() const { return sub_norms != SubNorms::kEveryLinearOnly; }
  // Norms of their own before q_proj, k_proj, v_proj, gate_proj and up_proj.
  bool HasInputNorms() const {
    return sub_norms == SubNorms::kEveryLinear || sub_norms == SubNorms::kEveryLinearOnly;
  }
  // And before o_proj and down_proj.
  bool HasOutputNorms() const { return sub_norms != SubNorms::kNone; }
  int64_t WindowOf(int64_t layer) const {
    return attention_windows.empty() ? 0 : attention_windows[static_cast<size_t>(layer)];
  }
  bool operator==(const ModelConfig&) const = default;
};

// Throws RecipeError that names the field, its value and the rule it breaks (divisibility, ranges).
void ValidateModelConfig(const ModelConfig& config);

// Windows of layers as attention_windows has them: those that reach over the whole context are
// none. REQUIRES: one a layer, 0 or above.
std::vector<int64_t> WindowsWithin(std::vector<int64_t> windows, int64_t context_length);
// The model without sliding attention: its context is cut to the shortest window, within which
// that makes no difference.
ModelConfig CutToWindow(ModelConfig config);

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
// What the norm of `linear`'s own ("self_attn.o_proj") is called in a layer, without ".weight":
// "self_attn.attn_sub_norm", "self_attn.o_proj.rms_norm"; empty: it has none. Those of each layer
// have the names that BitLinear(use_rms_norm=True) of Hugging Face transformers gives them.
std::string OwnNorm(const ModelConfig& config, std::string_view linear);
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
std::string_view ToString(SubNorms sub_norms);

}  // namespace tern
