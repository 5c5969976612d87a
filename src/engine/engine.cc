// See engine.h.
#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "engine/linear.h"
#include "engine/rope_factors.h"
#include "engine/weight_table.h"
#include "kernels/gated_ffn/gated_ffn.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"

namespace tern::engine {
namespace {

constexpr int64_t kChunkTokens = 128;  // Prefill is cut into chunks, so that its buffers stay small

std::vector<float> Norm(const std::vector<float>& x, const std::vector<float>& gain, float eps,
                        const ParallelFor& parallel) {
  const int64_t d = static_cast<int64_t>(gain.size()), rows = static_cast<int64_t>(x.size()) / d;
  std::vector<float> y(x.size()), inverse_rms(static_cast<size_t>(rows));
  kernels::RmsNormForward(x.data(), gain.data(), rows, d, eps, y.data(), inverse_rms.data(),
                          parallel);
  return y;
}

void AddTo(std::vector<float>& x, const std::vector<float>& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

void AddBias(std::vector<float>& x, const std::vector<float>& bias) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += bias[i % bias.size()];
}

}  // namespace

Engine::Engine(ModelWeights weights, int num_threads)
    : weights_(std::move(weights)), pool_(num_threads), parallel_(pool_.Runner()) {
  CheckSizes(weights_);
  for (LayerWeights& layer : weights_.layers) {
    for (LinearMatrix* matrix :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      if (auto* blocks = std::get_if<BlockMatrix>(matrix)) MoveToHugePages(blocks);
    }
  }
  TableMatrix& head = weights_.head ? *weights_.head : weights_.embedding;
  if (auto* blocks = std::get_if<BlockMatrix>(&head)) MoveToHugePages(blocks);
}

Session::Session(const Engine& engine, int64_t capacity) : engine_(engine) {
  const ModelConfig& c = engine.config();
  capacity_ = capacity <= 0 ? c.context_length : std::min(capacity, c.context_length);
  const size_t size = static_cast<size_t>(capacity_ * c.num_kv_heads * c.HeadDim());
  for (int64_t l = 0; l < c.num_layers; ++l)
    caches_.push_back({std::vector<float>(size), std::vector<float>(size)});
  rope_cos_.resize(static_cast<size_t>(capacity_ * c.HeadDim() / 2));
  rope_sin_.resize(rope_cos_.size());
  FillRopeTable(engine.weights(), capacity_, rope_cos_.data(), rope_sin_.data());
}

std::vector<float> Session::Append(std::span<const int32_t> tokens, LogitsOf which) {
  const int64_t count = static_cast<int64_t>(tokens.size());
  TERN_CHECK_INPUT(count > 0, "no tokens to run; the prompt is empty");
  TERN_CHECK_INPUT(size_ + count <= capacity_, "the sequence would have ", size_ + count,
                   " tokens; there is room for ", capacity_, " (the model's context is ",
                   engine_.config().context_length,
                   "). Shorten the prompt or ask for fewer new tokens");
  for (const int32_t token : tokens) {
    TERN_CHECK_INPUT(token >= 0 && token < engine_.config().vocab_size, "token id ", token,
                     " is outside of 0 to ", engine_.config().vocab_size - 1);
  }
  std::vector<float> logits;
  for (int64_t begin = 0; begin < count; begin += kChunkTokens) {
    const int64_t size = std::min(kChunkTokens, count - begin);
    std::vector<float> part =
        Chunk(tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(size)), which);
    if (which == LogitsOf::kLast) {
      logits = std::move(part);
    } else {
      logits.insert(logits.end(), part.begin(), part.end());
    }
  }
  return logits;
}

std::vector<float> Session::Chunk(std::span<const int32_t> tokens, LogitsOf which) {
  const ModelWeights& w = engine_.weights();
  const int64_t m = static_cast<int64_t>(tokens.size()), d = w.config.hidden_size;
  positions_.resize(static_cast<size_t>(m));
  for (int64_t i = 0; i < m; ++i)
    positions_[static_cast<size_t>(i)] = static_cast<int32_t>(size_ + i);
  std::vector<float> x_MD(static_cast<size_t>(m * d));
  for (int64_t i = 0; i < m; ++i)
    CopyRow(w.embedding, tokens[static_cast<size_t>(i)], x_MD.data() + i * d);
  for (size_t l = 0; l < w.layers.size(); ++l) {
    Attention(w.layers[l], caches_[l], m, x_MD);
    FeedForward(w.layers[l], m, x_MD);
  }
  size_ += m;
  const std::vector<float> h_MD = Norm(x_MD, w.final_norm, w.config.norm_eps, engine_.parallel());
  const TableMatrix& head = w.head ? *w.head : w.embedding;
  const int64_t rows = which == LogitsOf::kLast ? 1 : m;
  return MultiplyTable(h_MD.data() + (m - rows) * d, rows, head, engine_.parallel());
}

void Session::Attention(const LayerWeights& layer, LayerCache& cache, int64_t m,
                        std::vector<float>& x_MD) {
  const ModelWeights& w = engine_.weights();
  const ModelConfig& c = w.config;
  const ParallelFor& parallel = engine_.parallel();
  const int64_t e = c.HeadDim(), kv = c.num_kv_heads * e;
  auto qkv = MultiplyAll(Norm(x_MD, layer.input_norm, c.norm_eps, parallel), m,
                         {&layer.q, &layer.k, &layer.v}, w.activation, parallel);
  std::vector<float>&q = qkv[0], &k = qkv[1], &v = qkv[2];
  if (w.extras.qkv_bias) {
    AddBias(q, layer.q_bias);
    AddBias(k, layer.k_bias);
    AddBias(v, layer.v_bias);
  }
  if (c.qk_norm) {
    q = Norm(q, layer.q_norm, c.norm_eps, parallel);
    k = Norm(k, layer.k_norm, c.norm_eps, parallel);
  }
  const auto rotate = [&](std::vector<float>& x, int64_t heads) {
    kernels::Rope(x.data(), m, heads, e, heads * e, positions_.data(), rope_cos_.data(),
                  rope_sin_.data(), kernels::RopeDirection::kForward, parallel);
  };
  rotate(q, c.num_heads);
  rotate(k, c.num_kv_heads);
  std::copy_n(k.data(), m * kv, cache.keys.data() + size_ * kv);
  std::copy_n(v.data(), m * kv, cache.values.data() + size_ * kv);
  std::vector<float> out = Attend(cache, q, m);
  if (c.sub_norms) out = Norm(out, layer.attn_sub_norm, c.norm_eps, parallel);
  AddTo(x_MD, MultiplyAll(out, m, {&layer.o}, w.activation, parallel)[0]);
}

std::vector<float> Session::Attend(const LayerCache& cache, const std::vector<float>& q,
                                   int64_t m) const {
  const ModelConfig& c = engine_.config();
  const int64_t e = c.HeadDim(), heads = c.num_heads, kv = c.num_kv_heads * e,
                group = heads / c.num_kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(e));
  std::vector<float> out(q.size());
  engine_.parallel()(m * heads, /*grain=*/1, [&](int64_t begin, int64_t end) {
    std::vector<float> weights;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / heads, head = item % heads, seen = size_ + row + 1;
      const float* query = q.data() + (row * heads + head) * e;
      const float* keys = cache.keys.data() + head / group * e;
      const float* values = cache.values.data() + head / group * e;
      weights.assign(static_cast<size_t>(seen), 0.0f);
      float highest = -INFINITY;
      for (int64_t t = 0; t < seen; ++t) {
        float dot = 0;
        for (int64_t i = 0; i < e; ++i) dot += query[i] * keys[t * kv + i];
        weights[static_cast<size_t>(t)] = dot * scale;
        highest = std::max(highest, dot * scale);
      }
      float total = 0;
      for (float& weight : weights) total += weight = std::exp(weight - highest);
      float* result = out.data() + (row * heads + head) * e;
      for (int64_t t = 0; t < seen; ++t) {
        const float share = weights[static_cast<size_t>(t)] / total;
        for (int64_t i = 0; i < e; ++i) result[i] += share * values[t * kv + i];
      }
    }
  });
  return out;
}

void Session::FeedForward(const LayerWeights& layer, int64_t m, std::vector<float>& x_MD) {
  const ModelWeights& w = engine_.weights();
  const ParallelFor& parallel = engine_.parallel();
  auto gate_up = MultiplyAll(Norm(x_MD, layer.post_norm, w.config.norm_eps, parallel), m,
                             {&layer.gate, &layer.up}, w.activation, parallel);
  std::vector<float>& h = gate_up[0];
  const auto gate = w.config.activation == Activation::kSilu
                        ? kernels::GateActivation::kSilu
                        : kernels::GateActivation::kSquaredRelu;
  kernels::GatedFfnForward(gate, h.data(), gate_up[1].data(), static_cast<int64_t>(h.size()),
                           h.data(), parallel);
  if (w.config.sub_norms) h = Norm(h, layer.ffn_sub_norm, w.config.norm_eps, parallel);
  AddTo(x_MD, MultiplyAll(h, m, {&layer.down}, w.activation, parallel)[0]);
}

}  // namespace tern::engine
