// See layer_pass.h.
#include "engine/layer_pass.h"

#include <cmath>

#include "engine/scratch.h"
#include "kernels/gated_ffn/gated_ffn.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/rope_kv/rope_kv.h"

namespace tern::engine {
namespace {

void AddTo(float* x, const float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] += y[i];
}

void AddBias(float* x, const std::vector<float>& bias, int64_t m) {
  const auto n = static_cast<int64_t>(bias.size());
  for (int64_t row = 0; row < m; ++row) AddTo(x + row * n, bias.data(), n);
}

}  // namespace

LayerPass::LayerPass(const ModelConfig& config, ActivationRule activation,
                     CodeActivations code_activations, int64_t positions,
                     const ParallelFor& parallel)
    : config_(config),
      activation_(activation),
      parallel_(parallel),
      input_(parallel, code_activations) {
  const auto angles = static_cast<size_t>(positions * config.HeadDim() / 2);
  rope_cos_.resize(angles);
  rope_sin_.resize(angles);
  kernels::RopeTable(positions, config.HeadDim(), config.rope_theta,
                     RopeFactors(config.rope_scaling, config.HeadDim(), config.rope_theta),
                     rope_cos_.data(), rope_sin_.data());
}

void LayerPass::Run(int64_t index, const LayerWeights& layer, const kernels::KvPages& cache,
                    const kernels::KvRows& rows, float* x) {
  Attention(layer, config_.WindowOf(index), cache, rows, x);
  FeedForward(layer, rows.m, x);
}

void LayerPass::Project(const float* x, int64_t m, const std::vector<float>& pre_norm,
                        std::initializer_list<Branch> branches) {
  const int64_t d = config_.hidden_size;
  if (!config_.HasInputNorms()) {
    input_.Set(x, m, d, pre_norm, config_.norm_eps);
    for (const Branch& branch : branches)
      Multiply(input_, branch.w, activation_, branch.y, parallel_);
    return;
  }
  if (config_.HasPreNorms()) {
    float* normed = Room(&normed_, m * d);
    kernels::RmsNormForward(x, pre_norm.data(), m, d, config_.norm_eps, normed,
                            Room(&inverse_rms_, m), parallel_);
    x = normed;
  }
  for (const Branch& branch : branches) {
    input_.Set(x, m, d, branch.own_norm, config_.norm_eps);
    Multiply(input_, branch.w, activation_, branch.y, parallel_);
  }
}

void LayerPass::Attention(const LayerWeights& layer, int64_t window, const kernels::KvPages& cache,
                          const kernels::KvRows& rows, float* x) {
  const ModelConfig& c = config_;
  const int64_t m = rows.m, d = c.hidden_size, e = c.HeadDim(), heads = c.num_heads * e,
                kv = c.num_kv_heads * e;
  float *q = Room(&q_, m * heads), *k = Room(&k_, m * kv), *v = Room(&v_, m * kv);
  Project(x, m, layer.input_norm,
          {{layer.q, layer.q_in, q}, {layer.k, layer.k_in, k}, {layer.v, layer.v_in, v}});
  if (c.qkv_bias) {
    AddBias(q, layer.q_bias, m);
    AddBias(k, layer.k_bias, m);
    AddBias(v, layer.v_bias, m);
  }
  if (c.qk_norm) {
    float* scratch = Room(&inverse_rms_, m * c.num_heads);
    kernels::RmsNormForward(q, layer.q_norm.data(), m * c.num_heads, e, c.norm_eps, q, scratch,
                            parallel_);
    kernels::RmsNormForward(k, layer.k_norm.data(), m * c.num_kv_heads, e, c.norm_eps, k, scratch,
                            parallel_);
  }
  kernels::RopeKv({q, k, v, heads, kv, kv, c.num_heads, c.num_kv_heads, e, rope_cos_.data(),
                   rope_sin_.data(), rows, cache},
                  parallel_);
  kernels::PagedAttention(
      q, heads, {c.num_heads, c.num_kv_heads, e, window, 1.0f / std::sqrt(static_cast<float>(e))},
      rows, cache, q, heads, parallel_);
  input_.Set(q, m, heads, layer.o_in, c.norm_eps);
  float* y = Room(&sum_, m * d);
  Multiply(input_, layer.o, activation_, y, parallel_);
  AddTo(x, y, m * d);
}

void LayerPass::FeedForward(const LayerWeights& layer, int64_t m, float* x) {
  const ModelConfig& c = config_;
  const int64_t d = c.hidden_size, f = c.intermediate_size;
  float *gate = Room(&gate_, m * f), *up = Room(&up_, m * f);
  Project(x, m, layer.post_norm, {{layer.gate, layer.gate_in, gate}, {layer.up, layer.up_in, up}});
  const auto activation = c.activation == Activation::kSilu ? kernels::GateActivation::kSilu
                                                            : kernels::GateActivation::kSquaredRelu;
  kernels::GatedFfnForward(activation, gate, up, m * f, gate, parallel_);
  input_.Set(gate, m, f, layer.down_in, c.norm_eps);
  float* y = Room(&sum_, m * d);
  Multiply(input_, layer.down, activation_, y, parallel_);
  AddTo(x, y, m * d);
}

}  // namespace tern::engine
