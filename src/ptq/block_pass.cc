// See block_pass.h. The arithmetic is model::Decoder's; a test holds them equal.
#include "ptq/block_pass.h"

#include <ATen/ops/arange.h>

#include "base/error.h"
#include "nn/attention.h"
#include "nn/precision.h"

namespace tern::ptq {

const std::vector<std::string>& MatricesOf(Step step) {
  static const std::vector<std::string> qkv = {"self_attn.q_proj.weight", "self_attn.k_proj.weight",
                                               "self_attn.v_proj.weight"},
                                        o = {"self_attn.o_proj.weight"},
                                        gate_up = {"mlp.gate_proj.weight", "mlp.up_proj.weight"},
                                        down = {"mlp.down_proj.weight"};
  switch (step) {
    case Step::kQkv:
      return qkv;
    case Step::kO:
      return o;
    case Step::kGateUp:
      return gate_up;
    case Step::kDown:
      return down;
  }
  throw BugError("no such step");
}

BlockPass::BlockPass(const ModelConfig& config, const nn::RopeTables& rope, const Tensors& tensors,
                     at::Tensor x_BTD, ActivationRoom room)
    : config_(config),
      rope_(rope),
      tensors_(tensors),
      x_BTD_(std::move(x_BTD)),
      room_(std::move(room)),
      positions_T_(at::arange(x_BTD_.size(1), at::kInt)) {}

at::Tensor BlockPass::Norm(const at::Tensor& x, const char* name) const {
  return nn::RmsNorm(x, Get(name), config_.norm_eps);
}

at::Tensor BlockPass::Linear(const at::Tensor& x_MK, const char* name) const {
  return nn::DenseLinear(x_MK, Get(name), nn::ComputeType::kFp32);
}

// "q": the normed heads of a projection, [T, heads, E].
at::Tensor BlockPass::Heads(const at::Tensor& n_TD, const char* name, int64_t heads) const {
  const std::string module = StrCat("self_attn.", name);
  at::Tensor y = Linear(n_TD, StrCat(module, "_proj.weight").c_str());
  if (config_.qkv_bias) y = y + Get(StrCat(module, "_proj.bias"));
  y = y.view({n_TD.size(0), heads, config_.HeadDim()});
  const bool normed = config_.qk_norm && name[0] != 'v';
  return normed ? Norm(y, StrCat(module, "_norm.weight").c_str()) : y;
}

at::Tensor BlockPass::Attention(const at::Tensor& x_TD) const {
  const at::Tensor n_TD = Norm(x_TD, "input_layernorm.weight");
  const at::Tensor q = nn::Rope(Heads(n_TD, "q", config_.num_heads), positions_T_, rope_),
                   k = nn::Rope(Heads(n_TD, "k", config_.num_kv_heads), positions_T_, rope_),
                   v = Heads(n_TD, "v", config_.num_kv_heads);
  const at::Tensor out_TK = nn::CausalAttention(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), {},
                                                nn::ComputeType::kFp32)
                                .squeeze(0);
  return config_.HasOutputNorms() ? Norm(out_TK, "self_attn.attn_sub_norm.weight") : out_TK;
}

at::Tensor BlockPass::Hidden(const at::Tensor& x_TD) const {
  const at::Tensor n_TD = Norm(x_TD, "post_attention_layernorm.weight");
  const at::Tensor h_TF = nn::GatedActivation(
      Linear(n_TD, "mlp.gate_proj.weight"), Linear(n_TD, "mlp.up_proj.weight"), config_.activation);
  return config_.HasOutputNorms() ? Norm(h_TF, "mlp.ffn_sub_norm.weight") : h_TF;
}

void BlockPass::Inputs(Step step, const std::function<void(const at::Tensor&)>& see) {
  const int64_t sequences = x_BTD_.size(0);
  if (step == Step::kO) {
    attention_BTK_ = room_.New({sequences, x_BTD_.size(1), config_.num_heads * config_.HeadDim()});
  }
  for (int64_t b = 0; b < sequences; ++b) {
    const at::Tensor x_TD = x_BTD_[b];
    switch (step) {
      case Step::kQkv:
        see(Norm(x_TD, "input_layernorm.weight"));
        break;
      case Step::kO:
        attention_BTK_[b].copy_(Attention(x_TD));
        see(attention_BTK_[b]);
        room_.Drop(attention_BTK_[b]);
        break;
      case Step::kGateUp:
        see(Norm(x_TD, "post_attention_layernorm.weight"));
        break;
      case Step::kDown:
        see(Hidden(x_TD));
        break;
    }
    room_.Drop(x_TD);
  }
}

void BlockPass::Finish(Step step) {
  if (step == Step::kQkv || step == Step::kGateUp) return;
  for (int64_t b = 0; b < x_BTD_.size(0); ++b) {
    at::Tensor x_TD = x_BTD_[b];
    if (step == Step::kO) {
      x_TD.add_(Linear(attention_BTK_[b], "self_attn.o_proj.weight"));
      room_.Drop(attention_BTK_[b]);
    } else {
      x_TD.add_(Linear(Hidden(x_TD), "mlp.down_proj.weight"));
    }
    room_.Drop(x_TD);
  }
  if (step == Step::kO) attention_BTK_ = at::Tensor();
}

at::Tensor BlockPass::Output(const at::Tensor& x_TD) const {
  const at::Tensor h_TD = x_TD + Linear(Attention(x_TD), "self_attn.o_proj.weight");
  return h_TD + Linear(Hidden(h_TD), "mlp.down_proj.weight");
}

}  // namespace tern::ptq
