// See decoder.h.
#include "model/decoder.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>

#include "base/error.h"
#include "base/random.h"
#include "nn/attention.h"
#include "nn/checkpoint_block.h"
#include "nn/fused_ops.h"

namespace tern::model {
namespace {

// Fills x with normal(0, std): element i is value first + i of the stream "init/<name>", so threads
// and ranks do not matter.
void FillNormal(at::Tensor x, uint64_t seed, const std::string& name, float std, int64_t first) {
  float* data = x.mutable_data_ptr<float>();
  constexpr int64_t kGrain = 1 << 14;
  at::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    RandomStream stream(seed, "init/" + name, static_cast<uint64_t>(first + begin));
    for (int64_t i = begin; i < end; ++i) data[i] = std * stream.NextNormal();
  });
}

at::Tensor PositionsOf(const DecoderInput& input) {
  if (input.positions_BT.defined()) return input.positions_BT.reshape({-1});
  const int64_t batch = input.tokens_BT.size(0), tokens = input.tokens_BT.size(1);
  return at::arange(tokens, at::kInt).repeat({batch});
}

}  // namespace

Decoder::Decoder(const ModelConfig& config) : config_(config) {
  ValidateModelConfig(config);
  for (ParameterSpec& spec : ParameterTable(config)) {
    at::Tensor value = at::empty(spec.shape, at::kFloat).set_requires_grad(true);
    parameters_.push_back({std::move(spec), std::move(value)});
  }
  MakeLayers();
  rope_ = nn::MakeRopeTables(config.context_length, config.HeadDim(), config.rope_theta,
                             RopeFactors(config.rope_scaling, config.HeadDim(), config.rope_theta));
}

void Decoder::MakeLayers() {
  const ModelConfig& config = config_;
  layers_.clear();
  for (int64_t l = 0; l < config.num_layers; ++l) {
    const std::string prefix = StrCat("model.layers.", l, ".");
    const auto get = [&](const char* name, bool present = true) {
      return present ? Get(StrCat(prefix, name, ".weight")) : at::Tensor();
    };
    const auto bias = [&](const char* name) {
      return config.qkv_bias ? Get(StrCat(prefix, "self_attn.", name, "_proj.bias")) : at::Tensor();
    };
    layers_.push_back({get("input_layernorm"), get("self_attn.q_proj"), get("self_attn.k_proj"),
                       get("self_attn.v_proj"), get("self_attn.q_norm", config.qk_norm),
                       get("self_attn.k_norm", config.qk_norm),
                       get("self_attn.attn_sub_norm", config.sub_norms), get("self_attn.o_proj"),
                       get("post_attention_layernorm"), get("mlp.gate_proj"), get("mlp.up_proj"),
                       get("mlp.ffn_sub_norm", config.sub_norms), get("mlp.down_proj"), bias("q"),
                       bias("k"), bias("v")});
  }
}

Decoder Decoder::With(const std::map<std::string, at::Tensor>& values) const {
  Decoder other = *this;
  size_t used = 0;
  for (Parameter& parameter : other.parameters_) {
    const auto found = values.find(parameter.spec.name);
    if (found == values.end()) continue;
    TERN_CHECK(found->second.sizes() == parameter.value.sizes(), parameter.spec.name, " is ",
               found->second.sizes(), ", want ", parameter.value.sizes());
    parameter.value = found->second;
    ++used;
  }
  TERN_CHECK(used == values.size(), used, " of ", values.size(), " names are parameters");
  other.MakeLayers();
  return other;
}

void Decoder::Initialize(uint64_t seed, const std::vector<int64_t>& first_elements) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& parameter = parameters_[i];
    if (parameter.spec.role == ParameterRole::kNorm) {
      parameter.value.fill_(1.0f);
    } else if (parameter.spec.role == ParameterRole::kBias) {
      parameter.value.zero_();
    } else {
      FillNormal(parameter.value, seed, parameter.spec.name, config_.init_std,
                 first_elements.empty() ? 0 : first_elements[i]);
    }
  }
}

void Decoder::KeepRows(size_t parameter, const at::Tensor& rows) {
  TERN_CHECK(config_.linear == LinearKind::kBitLinear &&
                 parameters_.at(parameter).spec.role == ParameterRole::kLinear,
             parameters_.at(parameter).spec.name);
  parameters_[parameter].value.set_data(rows);  // The layers hold handles of the same tensor.
}

const at::Tensor& Decoder::Get(std::string_view name) const {
  for (const Parameter& parameter : parameters_) {
    if (parameter.spec.name == name) return parameter.value;
  }
  throw BugError(StrCat("no parameter ", name));
}

const at::Tensor& Decoder::HeadWeight() const {
  return config_.tied_head ? parameters_.front().value : parameters_.back().value;
}

std::vector<at::Tensor> Decoder::Linear(const at::Tensor& x_MK, const std::vector<at::Tensor>& w_NK,
                                        const char* group, const ForwardOptions& options) const {
  if (config_.linear == LinearKind::kBitLinear) {
    return nn::BitLinear(
        x_MK, w_NK,
        {options.compute, options.observer, group, options.quantized_share, options.source});
  }
  std::vector<at::Tensor> y;
  for (const at::Tensor& w : w_NK) y.push_back(nn::DenseLinear(x_MK, w, options.compute));
  return y;
}

at::Tensor Decoder::Attention(const Layer& layer, const at::Tensor& n_MD, const BlockInput& input,
                              const ForwardOptions& options, LayerFeatures* features) const {
  const int64_t rows = n_MD.size(0), e = config_.HeadDim();
  auto qkv = Linear(n_MD, {layer.q, layer.k, layer.v}, "qkv", options);
  if (config_.qkv_bias) qkv = {qkv[0] + layer.q_bias, qkv[1] + layer.k_bias, qkv[2] + layer.v_bias};
  const auto heads = [&](const at::Tensor& x, int64_t count) { return x.view({rows, count, e}); };
  at::Tensor q_MHE = heads(qkv[0], config_.num_heads), k_MJE = heads(qkv[1], config_.num_kv_heads);
  if (config_.qk_norm) {
    q_MHE = nn::RmsNorm(q_MHE, layer.q_norm, config_.norm_eps);
    k_MJE = nn::RmsNorm(k_MJE, layer.k_norm, config_.norm_eps);
  }
  if (features != nullptr) {
    features->q_MD = q_MHE.reshape({rows, -1});
    features->k_MD = k_MJE.reshape({rows, -1});
    features->v_MD = qkv[2];
  }
  const auto sequences = [&](const at::Tensor& x_MHE) {
    return x_MHE.view({input.batch, input.tokens, x_MHE.size(1), e});
  };
  const at::Tensor out_BTK = nn::CausalAttention(
      sequences(nn::Rope(q_MHE, input.positions_M, rope_)),
      sequences(nn::Rope(k_MJE, input.positions_M, rope_)),
      sequences(heads(qkv[2], config_.num_kv_heads)), input.mask_B1TT, options.compute);
  at::Tensor out_MK = out_BTK.view({rows, config_.num_heads * e});
  if (features != nullptr) features->o_input_MD = out_MK;
  if (config_.sub_norms) out_MK = nn::RmsNorm(out_MK, layer.attn_sub_norm, config_.norm_eps);
  return Linear(out_MK, {layer.o}, "o", options)[0];
}

at::Tensor Decoder::FeedForward(const Layer& layer, const at::Tensor& n_MD,
                                const ForwardOptions& options, LayerFeatures* features) const {
  const auto gate_up = Linear(n_MD, {layer.gate, layer.up}, "gate_up", options);
  at::Tensor h_MF = nn::GatedActivation(gate_up[0], gate_up[1], config_.activation);
  if (features != nullptr) features->down_input_MF = h_MF;
  if (config_.sub_norms) h_MF = nn::RmsNorm(h_MF, layer.ffn_sub_norm, config_.norm_eps);
  return Linear(h_MF, {layer.down}, "down", options)[0];
}

at::Tensor Decoder::Block(const Layer& layer, const at::Tensor& x_MD, const BlockInput& input,
                          const ForwardOptions& options, LayerFeatures* features) const {
  const at::Tensor n_MD = nn::RmsNorm(x_MD, layer.input_norm, config_.norm_eps);
  const at::Tensor h_MD = x_MD + Attention(layer, n_MD, input, options, features);
  at::Tensor y_MD = h_MD + FeedForward(layer, nn::RmsNorm(h_MD, layer.post_norm, config_.norm_eps),
                                       options, features);
  if (features != nullptr) features->hidden_MD = y_MD;
  return y_MD;
}

at::Tensor Decoder::Hidden(const DecoderInput& input, const ForwardOptions& options) const {
  BlockInput block;
  block.batch = input.tokens_BT.size(0);
  block.tokens = input.tokens_BT.size(1);
  TERN_CHECK_INPUT(block.tokens <= config_.context_length, "a sequence of ", block.tokens,
                   " tokens is longer than the model's context of ", config_.context_length,
                   "; shorten it or raise model.context_length");
  block.positions_M = PositionsOf(input);
  if (input.document_ids_BT.defined()) block.mask_B1TT = nn::DocumentMask(input.document_ids_BT);
  at::Tensor x_MD = at::embedding(parameters_.front().value, input.tokens_BT.reshape({-1}));
  TERN_CHECK(options.capture == nullptr || !options.checkpoint_blocks, "capture in blocks");
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    if (!options.checkpoint_blocks) {
      const auto index = static_cast<int64_t>(l);
      const bool wanted = options.capture != nullptr && options.capture->layers.contains(index);
      x_MD =
          Block(layer, x_MD, block, options, wanted ? &options.capture->features[index] : nullptr);
      continue;
    }
    x_MD = nn::CheckpointBlock(x_MD,
                               [this, &layer, block, options](const at::Tensor& x, bool recompute) {
                                 ForwardOptions now = options;
                                 if (recompute)
                                   now.observer = nullptr;  // It has seen this block already.
                                 return Block(layer, x, block, now, nullptr);
                               });
  }
  const size_t final_norm = parameters_.size() - (config_.tied_head ? 1 : 2);
  return nn::RmsNorm(x_MD, parameters_[final_norm].value, config_.norm_eps);
}

at::Tensor Decoder::Logits(const DecoderInput& input, const ForwardOptions& options) const {
  return nn::DenseLinear(Hidden(input, options), HeadWeight(), options.compute);
}

}  // namespace tern::model
