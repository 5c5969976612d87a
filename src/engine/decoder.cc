// See decoder.h.
#include "engine/decoder.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/scratch.h"
#include "kernels/gated_ffn/gated_ffn.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/rope_kv/rope_kv.h"

namespace tern::engine {
namespace {

// Rows of one pass: enough for the tiles of the products, few enough for small buffers.
constexpr int64_t kChunkRows = 256;

void AddTo(float* x, const float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] += y[i];
}

void AddBias(float* x, const std::vector<float>& bias, int64_t m) {
  const auto n = static_cast<int64_t>(bias.size());
  for (int64_t row = 0; row < m; ++row) AddTo(x + row * n, bias.data(), n);
}

}  // namespace

Decoder::Decoder(const Engine& engine, KvCache& cache, int64_t capacity)
    : engine_(engine),
      cache_(cache),
      capacity_(std::min(capacity, engine.config().context_length)),
      input_(engine.parallel(), engine.weights().code_activations) {
  const auto angles = static_cast<size_t>(capacity_ * engine.config().HeadDim() / 2);
  rope_cos_.resize(angles);
  rope_sin_.resize(angles);
  const ModelConfig& c = engine.config();
  kernels::RopeTable(capacity_, c.HeadDim(), c.rope_theta,
                     RopeFactors(c.rope_scaling, c.HeadDim(), c.rope_theta), rope_cos_.data(),
                     rope_sin_.data());
}

void Decoder::Check(const Request& request) const {
  const auto count = static_cast<int64_t>(request.tokens.size());
  const int64_t size = request.sequence->size(), vocab_size = engine_.config().vocab_size;
  TERN_CHECK_INPUT(count > 0, "no tokens to run; the prompt is empty");
  TERN_CHECK_INPUT(size + count <= capacity_, "the sequence would have ", size + count,
                   " tokens; there is room for ", capacity_, " (the model's context is ",
                   engine_.config().context_length,
                   "). Shorten the prompt or ask for fewer new tokens");
  for (const int32_t token : request.tokens) {
    TERN_CHECK_INPUT(token >= 0 && token < vocab_size, "token id ", token, " is outside of 0 to ",
                     vocab_size - 1);
  }
}

std::vector<std::vector<float>> Decoder::Run(std::span<const Request> requests) {
  for (const Request& request : requests) Check(request);
  std::vector<int64_t> sizes;
  for (const Request& request : requests) sizes.push_back(request.sequence->size());
  std::vector<std::vector<float>> logits(requests.size());
  try {
    for (const Request& request : requests)
      request.sequence->Reserve(static_cast<int64_t>(request.tokens.size()));
  } catch (const ResourceError&) {
    for (size_t i = 0; i < requests.size(); ++i) requests[i].sequence->Truncate(sizes[i]);
    throw;
  }
  std::vector<Part> parts;
  int64_t rows = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto count = static_cast<int64_t>(requests[i].tokens.size());
    for (int64_t begin = 0; begin < count;) {
      const int64_t taken = std::min(count - begin, kChunkRows - rows);
      parts.push_back({i, begin, taken});
      begin += taken;
      rows += taken;
      if (rows < kChunkRows && (begin < count || i + 1 < requests.size())) continue;
      Chunk(requests, parts, &logits);
      parts.clear();
      rows = 0;
    }
  }
  return logits;
}

int64_t Decoder::FillRows(std::span<const Request> requests, std::span<const Part> parts) {
  const int64_t d = engine_.config().hidden_size, pages = KvCache::PagesFor(capacity_);
  int64_t m = 0;
  for (const Part& part : parts) m += part.count;
  positions_.clear();
  sequence_of_.clear();
  tables_.assign(parts.size() * static_cast<size_t>(pages), 0);
  float* x = Room(&x_, m * d);
  for (size_t p = 0; p < parts.size(); ++p) {
    const Request& request = requests[parts[p].request];
    std::copy(request.sequence->pages().begin(), request.sequence->pages().end(),
              tables_.begin() + static_cast<int64_t>(p) * pages);
    for (int64_t i = 0; i < parts[p].count; ++i, x += d) {
      positions_.push_back(static_cast<int32_t>(request.sequence->size() + i));
      sequence_of_.push_back(static_cast<int32_t>(p));
      CopyRow(engine_.weights().embedding, request.tokens[static_cast<size_t>(parts[p].begin + i)],
              x);
    }
  }
  return m;
}

void Decoder::Chunk(std::span<const Request> requests, std::span<const Part> parts,
                    std::vector<std::vector<float>>* logits) {
  const int64_t m = FillRows(requests, parts);
  const ModelWeights& w = engine_.weights();
  for (size_t l = 0; l < w.layers.size(); ++l) {
    Attention(w.layers[l], cache_.Layer(static_cast<int64_t>(l)), m);
    FeedForward(w.layers[l], m);
  }
  for (const Part& part : parts) requests[part.request].sequence->Advance(part.count);
  AppendLogits(requests, parts, logits);
}

void Decoder::AppendLogits(std::span<const Request> requests, std::span<const Part> parts,
                           std::vector<std::vector<float>>* logits) {
  const ModelWeights& w = engine_.weights();
  const TableMatrix& head = w.head ? *w.head : w.embedding;
  const int64_t d = w.config.hidden_size, v = w.config.vocab_size;
  // The rows that are asked for, together: the head is read once for all sequences.
  std::vector<std::pair<size_t, int64_t>> wanted;  // Request, row
  int64_t row = 0;
  for (const Part& part : parts) {
    const Request& request = requests[part.request];
    const bool last = part.begin + part.count == static_cast<int64_t>(request.tokens.size());
    for (int64_t i = 0; i < part.count; ++i, ++row) {
      if (request.which == LogitsOf::kAll || (last && i + 1 == part.count))
        wanted.emplace_back(part.request, row);
    }
  }
  if (wanted.empty()) return;
  const auto rows = static_cast<int64_t>(wanted.size());
  float* h = Room(&sum_, rows * d);
  for (int64_t i = 0; i < rows; ++i)
    std::copy_n(x_.data() + wanted[static_cast<size_t>(i)].second * d, d, h + i * d);
  std::vector<float> y(static_cast<size_t>(rows * v));
  input_.Set(h, rows, d, w.final_norm, w.config.norm_eps);
  Multiply(input_, head, y.data(), engine_.parallel());
  // A step of decoding, or a piece of one text: no copy of what may be tens of megabytes.
  if (wanted.front().first == wanted.back().first && (*logits)[wanted[0].first].empty()) {
    (*logits)[wanted[0].first] = std::move(y);
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<float>& out = (*logits)[wanted[static_cast<size_t>(i)].first];
    out.insert(out.end(), y.begin() + i * v, y.begin() + (i + 1) * v);
  }
}

void Decoder::Attention(const LayerWeights& layer, const kernels::KvPages& cache, int64_t m) {
  const ModelWeights& w = engine_.weights();
  const ModelConfig& c = w.config;
  const ParallelFor& parallel = engine_.parallel();
  const int64_t d = c.hidden_size, e = c.HeadDim(), heads = c.num_heads * e,
                kv = c.num_kv_heads * e;
  float *q = Room(&q_, m * heads), *k = Room(&k_, m * kv), *v = Room(&v_, m * kv);
  input_.Set(x_.data(), m, d, layer.input_norm, c.norm_eps);
  Multiply(input_, layer.q, w.activation, q, parallel);
  Multiply(input_, layer.k, w.activation, k, parallel);
  Multiply(input_, layer.v, w.activation, v, parallel);
  if (c.qkv_bias) {
    AddBias(q, layer.q_bias, m);
    AddBias(k, layer.k_bias, m);
    AddBias(v, layer.v_bias, m);
  }
  if (c.qk_norm) {
    float* scratch = Room(&inverse_rms_, m * c.num_heads);
    kernels::RmsNormForward(q, layer.q_norm.data(), m * c.num_heads, e, c.norm_eps, q, scratch,
                            parallel);
    kernels::RmsNormForward(k, layer.k_norm.data(), m * c.num_kv_heads, e, c.norm_eps, k, scratch,
                            parallel);
  }
  const kernels::KvRows rows{m, positions_.data(), sequence_of_.data(), tables_.data(),
                             KvCache::PagesFor(capacity_)};
  kernels::RopeKv({q, k, v, heads, kv, kv, c.num_heads, c.num_kv_heads, e, rope_cos_.data(),
                   rope_sin_.data(), rows, cache},
                  parallel);
  kernels::PagedAttention(
      q, heads, {c.num_heads, c.num_kv_heads, e, 0, 1.0f / std::sqrt(static_cast<float>(e))}, rows,
      cache, q, heads, parallel);
  input_.Set(q, m, heads, layer.attn_sub_norm, c.norm_eps);
  float* y = Room(&sum_, m * d);
  Multiply(input_, layer.o, w.activation, y, parallel);
  AddTo(x_.data(), y, m * d);
}

void Decoder::FeedForward(const LayerWeights& layer, int64_t m) {
  const ModelWeights& w = engine_.weights();
  const ModelConfig& c = w.config;
  const ParallelFor& parallel = engine_.parallel();
  const int64_t d = c.hidden_size, f = c.intermediate_size;
  float *gate = Room(&gate_, m * f), *up = Room(&up_, m * f);
  input_.Set(x_.data(), m, d, layer.post_norm, c.norm_eps);
  Multiply(input_, layer.gate, w.activation, gate, parallel);
  Multiply(input_, layer.up, w.activation, up, parallel);
  const auto activation = c.activation == Activation::kSilu ? kernels::GateActivation::kSilu
                                                            : kernels::GateActivation::kSquaredRelu;
  kernels::GatedFfnForward(activation, gate, up, m * f, gate, parallel);
  input_.Set(gate, m, f, layer.ffn_sub_norm, c.norm_eps);
  float* y = Room(&sum_, m * d);
  Multiply(input_, layer.down, w.activation, y, parallel);
  AddTo(x_.data(), y, m * d);
}

}  // namespace tern::engine
