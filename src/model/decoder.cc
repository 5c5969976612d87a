// See decoder.h.
#include "model/decoder.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "nn/attention.h"
#include "nn/checkpoint_block.h"
#include "nn/fused_ops.h"

namespace tern::model {
namespace {

// Fills the part x_NK of a matrix of k columns with normal(0, std): element i of the whole is value
// i of the stream "init/<name>", so threads and ranks do not matter.
void FillNormal(at::Tensor x_NK, uint64_t seed, const std::string& name, float std, int64_t k,
                const Place& place) {
  at::Tensor host_NK = x_NK.device().is_cpu() ? x_NK : at::empty(x_NK.sizes(), at::kFloat);
  float* data = host_NK.mutable_data_ptr<float>();
  const int64_t columns = x_NK.size(1), grain = std::max<int64_t>((1 << 14) / columns, 1);
  at::parallel_for(0, x_NK.size(0), grain, [&](int64_t begin, int64_t end) {
    RandomStream stream(seed, "init/" + name);
    for (int64_t row = begin; row < end; ++row) {
      stream.set_counter(static_cast<uint64_t>((place.first_row + row) * k + place.first_column));
      for (int64_t i = row * columns; i < (row + 1) * columns; ++i)
        data[i] = std * stream.NextNormal();
    }
  });
  if (!x_NK.device().is_cpu()) x_NK.copy_(host_NK);
}

// The part of `whole` that lies at `place` and is as large as `part`.
at::Tensor PartLike(const at::Tensor& whole, const at::Tensor& part, const Place& place) {
  const at::Tensor rows = whole.narrow(0, place.first_row, part.size(0));
  return rows.dim() == 1 ? rows : rows.narrow(1, place.first_column, part.size(1));
}

at::Tensor PositionsOf(const DecoderInput& input, int64_t first) {
  if (input.positions_BT.defined()) return input.positions_BT.reshape({-1});
  const int64_t batch = input.tokens_BT.size(0), tokens = input.tokens_BT.size(1);
  return at::arange(first, first + tokens, input.tokens_BT.options().dtype(at::kInt))
      .repeat({batch});
}

void CheckCache(const DecoderInput& input, const ForwardOptions& options) {
  const KeyValueCache& cache = *options.cache;
  TERN_CHECK(!at::GradMode::is_enabled() && !options.checkpoint_blocks &&
                 !input.positions_BT.defined() && !input.document_ids_BT.defined(),
             "a cache is for plain sequences without gradients");
  const int64_t tokens = input.tokens_BT.size(1);
  TERN_CHECK((tokens == 1 || cache.length == 0) && cache.length + tokens <= cache.capacity, tokens,
             " tokens after ", cache.length, " of ", cache.capacity);
}

// Puts new keys or values behind those in `kept` (made when it is undefined); returns all.
at::Tensor Append(const at::Tensor& x_BTJE, const KeyValueCache& cache, at::Tensor* kept) {
  const int64_t tokens = x_BTJE.size(1);
  if (!kept->defined())
    *kept = at::empty({x_BTJE.size(0), cache.capacity, x_BTJE.size(2), x_BTJE.size(3)},
                      x_BTJE.options());
  kept->narrow(1, cache.length, tokens).copy_(x_BTJE);
  return kept->narrow(1, 0, cache.length + tokens);
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, const at::Device& device) : config_(config) {
  ValidateModelConfig(config);
  TERN_CHECK(config.attention_windows.empty(), "a decoder has no sliding attention: CutToWindow");
  for (ParameterSpec& spec : ParameterTable(config)) {
    at::Tensor value =
        at::empty(spec.shape, at::TensorOptions(at::kFloat).device(device)).set_requires_grad(true);
    parameters_.push_back({std::move(spec), std::move(value)});
  }
  places_.resize(parameters_.size());
  MakeLayers();
  rope_ = nn::MakeRopeTables(config.context_length, config.HeadDim(), config.rope_theta,
                             RopeFactors(config.rope_scaling, config.HeadDim(), config.rope_theta));
  rope_ = {rope_.cos_TE2.to(device), rope_.sin_TE2.to(device)};
}

Decoder Decoder::To(const at::Device& device) const {
  Decoder other = *this;
  if (device == this->device()) return other;
  for (Parameter& parameter : other.parameters_) {
    const bool trained = parameter.value.requires_grad();
    parameter.value = parameter.value.detach().to(device).set_requires_grad(trained);
  }
  other.rope_ = {rope_.cos_TE2.to(device), rope_.sin_TE2.to(device)};
  other.MakeLayers();
  return other;
}

void Decoder::MakeLayers() {
  const ModelConfig& config = config_;
  layers_.clear();
  for (int64_t l = 0; l < config.num_layers; ++l) {
    const std::string prefix = StrCat("model.layers.", l, ".");
    const auto get = [&](const char* name, bool present = true) {
      return present ? Get(StrCat(prefix, name, ".weight")) : at::Tensor();
    };
    const auto matrix = [&](const char* name) {
      const auto found = inputs_.find(StrCat(prefix, name, ".weight"));
      const std::string own = OwnNorm(config, name);
      return Matrix{get(name), own.empty() ? at::Tensor() : get(own.c_str()),
                    found == inputs_.end() ? nn::InputTransform{} : found->second};
    };
    const auto bias = [&](const char* name) {
      return config.qkv_bias ? Get(StrCat(prefix, "self_attn.", name, "_proj.bias")) : at::Tensor();
    };
    Layer layer;
    layer.input_norm = get("input_layernorm", config.HasPreNorms());
    layer.post_norm = get("post_attention_layernorm", config.HasPreNorms());
    layer.q = matrix("self_attn.q_proj");
    layer.k = matrix("self_attn.k_proj");
    layer.v = matrix("self_attn.v_proj");
    layer.o = matrix("self_attn.o_proj");
    layer.gate = matrix("mlp.gate_proj");
    layer.up = matrix("mlp.up_proj");
    layer.down = matrix("mlp.down_proj");
    layer.q_norm = get("self_attn.q_norm", config.qk_norm);
    layer.k_norm = get("self_attn.k_norm", config.qk_norm);
    layer.q_bias = bias("q");
    layer.k_bias = bias("k");
    layer.v_bias = bias("v");
    layers_.push_back(std::move(layer));
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

Decoder Decoder::WithInputs(std::map<std::string, nn::InputTransform> inputs) const {
  if (inputs == inputs_) return *this;
  Decoder other = *this;
  for (const auto& [name, transform] : inputs) other.Get(name);  // That it is there
  other.inputs_ = std::move(inputs);
  other.MakeLayers();
  return other;
}

void Decoder::Initialize(uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& parameter = parameters_[i];
    if (parameter.spec.role == ParameterRole::kNorm) {
      parameter.value.fill_(1.0f);
    } else if (parameter.spec.role == ParameterRole::kBias) {
      parameter.value.zero_();
    } else {
      FillNormal(parameter.value, seed, parameter.spec.name, config_.init_std,
                 parameter.spec.shape[1], places_[i]);
    }
  }
}

void Decoder::CopyFrom(const Decoder& whole) {
  const at::NoGradGuard no_grad;
  int64_t taken = 0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto from = std::find_if(
        whole.parameters_.begin(), whole.parameters_.end(),
        [&](const Parameter& theirs) { return theirs.spec.name == parameters_[i].spec.name; });
    if (from == whole.parameters_.end()) continue;
    const at::Tensor& value = parameters_[i].value;
    value.copy_(PartLike(from->value, value, places_[i]));
    taken += from->spec.role != ParameterRole::kNorm;
  }
  const auto want = std::count_if(
      whole.parameters_.begin(), whole.parameters_.end(),
      [](const Parameter& theirs) { return theirs.spec.role != ParameterRole::kNorm; });
  TERN_CHECK(taken == want, "took ", taken, " of ", want, " matrices and biases");
}

void Decoder::KeepPart(size_t parameter, const at::Tensor& part, const Place& place) {
  const ParameterRole role = parameters_.at(parameter).spec.role;
  TERN_CHECK(role == ParameterRole::kLinear || role == ParameterRole::kBias,
             parameters_[parameter].spec.name);
  places_[parameter] = place;
  parameters_[parameter].value.set_data(part);  // The layers hold handles of the same tensor.
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

std::vector<at::Tensor> Decoder::Linear(const at::Tensor& x_MK, const std::vector<Matrix>& matrices,
                                        const char* group, const ForwardOptions& options,
                                        nn::TensorGroup* columns) const {
  std::vector<at::Tensor> y;
  for (size_t i = 0; i < matrices.size();) {  // Runs of matrices with one transform
    const nn::InputTransform& inputs = matrices[i].inputs;
    std::vector<at::Tensor> w_NK;
    for (; i < matrices.size() && matrices[i].inputs == inputs; ++i)
      w_NK.push_back(matrices[i].w_NK);
    if (config_.linear == LinearKind::kBitLinear) {
      for (at::Tensor& out :
           nn::BitLinear(x_MK, w_NK,
                         {options.compute, options.observer, group, options.quantized_share,
                          options.source, inputs, columns}))
        y.push_back(std::move(out));
      continue;
    }
    at::Tensor in_MK = nn::TransformInputs(x_MK, inputs, options.quantized_share);
    if (in_MK.size(1) != w_NK[0].size(1)) in_MK = nn::OwnColumns(in_MK, columns);
    for (const at::Tensor& w : w_NK)
      y.push_back(nn::SumParts(nn::DenseLinear(in_MK, w, options.compute), columns));
  }
  return y;
}

at::Tensor Decoder::Norm(const at::Tensor& x_MK, const at::Tensor& gain_K) const {
  return gain_K.defined() ? nn::RmsNorm(x_MK, gain_K, config_.norm_eps) : x_MK;
}

std::vector<at::Tensor> Decoder::Project(const at::Tensor& n_MD,
                                         const std::vector<Matrix>& matrices,
                                         const std::vector<const char*>& names,
                                         const ForwardOptions& options) const {
  if (!config_.HasInputNorms())
    return Linear(nn::SumGradients(n_MD, options.tensor), matrices, names.front(), options);
  std::vector<at::Tensor> y;
  for (size_t i = 0; i < matrices.size(); ++i) {
    const at::Tensor in_MD = nn::SumGradients(Norm(n_MD, matrices[i].norm_K), options.tensor);
    y.push_back(Linear(in_MD, {matrices[i]}, names[i + 1], options)[0]);
  }
  return y;
}

// The norm is one of whole rows: all ranks' columns come together for it.
at::Tensor Decoder::Output(const at::Tensor& x_MK, const Matrix& matrix, const char* name,
                           const ForwardOptions& options) const {
  const bool normed = matrix.norm_K.defined();
  const at::Tensor in_MK =
      normed ? Norm(nn::GatherColumns(x_MK, options.tensor), matrix.norm_K) : x_MK;
  return Linear(in_MK, {matrix}, name, options, options.tensor)[0];
}

at::Tensor Decoder::Attention(const Layer& layer, const at::Tensor& n_MD, const BlockInput& input,
                              const ForwardOptions& options, LayerFeatures* features) const {
  const int64_t rows = n_MD.size(0), e = config_.HeadDim();
  auto qkv = Project(n_MD, {layer.q, layer.k, layer.v}, {"qkv", "q", "k", "v"}, options);
  if (config_.qkv_bias) qkv = {qkv[0] + layer.q_bias, qkv[1] + layer.k_bias, qkv[2] + layer.v_bias};
  // All heads, or this rank's.
  const auto heads = [&](const at::Tensor& x) { return x.view({rows, x.size(1) / e, e}); };
  at::Tensor q_MHE = heads(qkv[0]), k_MJE = heads(qkv[1]);
  if (config_.qk_norm) {
    const auto gain = [&](const at::Tensor& g_E) { return nn::SumGradients(g_E, options.tensor); };
    q_MHE = nn::RmsNorm(q_MHE, gain(layer.q_norm), config_.norm_eps);
    k_MJE = nn::RmsNorm(k_MJE, gain(layer.k_norm), config_.norm_eps);
  }
  if (features != nullptr) {
    features->q_MD = q_MHE.reshape({rows, -1});
    features->k_MD = k_MJE.reshape({rows, -1});
    features->v_MD = qkv[2];
  }
  const auto sequences = [&](const at::Tensor& x_MHE) {
    return x_MHE.view({input.batch, input.tokens, x_MHE.size(1), e});
  };
  at::Tensor k_BTJE = sequences(nn::Rope(k_MJE, input.positions_M, rope_));
  at::Tensor v_BTJE = sequences(heads(qkv[2]));
  if (options.cache != nullptr) {
    const auto layer_index = static_cast<size_t>(input.layer);
    k_BTJE = Append(k_BTJE, *options.cache, &options.cache->k_BTJE[layer_index]);
    v_BTJE = Append(v_BTJE, *options.cache, &options.cache->v_BTJE[layer_index]);
  }
  const at::Tensor out_BTK =
      nn::CausalAttention(sequences(nn::Rope(q_MHE, input.positions_M, rope_)), k_BTJE, v_BTJE,
                          input.mask_B1TT, options.compute);
  const at::Tensor out_MK = out_BTK.view({rows, -1});
  if (features != nullptr) features->o_input_MD = out_MK;
  return Output(out_MK, layer.o, "o", options);
}

at::Tensor Decoder::FeedForward(const Layer& layer, const at::Tensor& n_MD,
                                const ForwardOptions& options, LayerFeatures* features) const {
  const auto gate_up = Project(n_MD, {layer.gate, layer.up}, {"gate_up", "gate", "up"}, options);
  const at::Tensor h_MF = nn::GatedActivation(gate_up[0], gate_up[1], config_.activation);
  if (features != nullptr) features->down_input_MF = h_MF;
  return Output(h_MF, layer.down, "down", options);
}

at::Tensor Decoder::Block(const Layer& layer, const at::Tensor& x_MD, const BlockInput& input,
                          const ForwardOptions& options, LayerFeatures* features) const {
  const at::Tensor h_MD =
      x_MD + Attention(layer, Norm(x_MD, layer.input_norm), input, options, features);
  at::Tensor y_MD = h_MD + FeedForward(layer, Norm(h_MD, layer.post_norm), options, features);
  if (features != nullptr) {
    features->input_MD = x_MD;
    features->hidden_MD = y_MD;
  }
  return y_MD;
}

Decoder::BlockInput Decoder::Begin(const DecoderInput& input, const ForwardOptions& options) const {
  BlockInput block;
  block.batch = input.tokens_BT.size(0);
  block.tokens = input.tokens_BT.size(1);
  const int64_t past = options.cache != nullptr ? options.cache->length : 0;
  TERN_CHECK_INPUT(past + block.tokens <= config_.context_length, "a sequence of ",
                   past + block.tokens, " tokens is longer than the model's context of ",
                   config_.context_length, "; shorten it or raise model.context_length");
  TERN_CHECK(options.capture == nullptr || !options.checkpoint_blocks, "capture in blocks");
  TERN_CHECK(options.tensor == nullptr || (options.capture == nullptr && options.cache == nullptr),
             "capture or cache of a part of the heads");
  block.positions_M = PositionsOf(input, past);
  if (input.document_ids_BT.defined()) block.mask_B1TT = nn::DocumentMask(input.document_ids_BT);
  if (options.cache == nullptr) return block;
  CheckCache(input, options);
  options.cache->k_BTJE.resize(layers_.size());
  options.cache->v_BTJE.resize(layers_.size());
  // The new token sees all before it.
  if (past > 0)
    block.mask_B1TT = at::ones({1, 1, 1, past + 1}, input.tokens_BT.options().dtype(at::kBool));
  return block;
}

at::Tensor Decoder::Hidden(const DecoderInput& input, const ForwardOptions& options) const {
  BlockInput block = Begin(input, options);
  at::Tensor x_MD = at::embedding(parameters_.front().value, input.tokens_BT.reshape({-1}));
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    block.layer = static_cast<int64_t>(l);
    if (!options.checkpoint_blocks) {
      const bool wanted =
          options.capture != nullptr && options.capture->layers.contains(block.layer);
      if (wanted && options.capture->differentiates_inputs && !x_MD.requires_grad())
        x_MD = x_MD.detach().set_requires_grad(true);
      x_MD = Block(layer, x_MD, block, options,
                   wanted ? &options.capture->features[block.layer] : nullptr);
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
  if (options.cache != nullptr) options.cache->length += block.tokens;
  const size_t final_norm = parameters_.size() - (config_.tied_head ? 1 : 2);
  return nn::RmsNorm(x_MD, parameters_[final_norm].value, config_.norm_eps);
}

at::Tensor Decoder::Logits(const DecoderInput& input, const ForwardOptions& options) const {
  return nn::DenseLinear(Hidden(input, options), HeadWeight(), options.compute);
}

}  // namespace tern::model
