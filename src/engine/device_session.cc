// See device_session.h. The weights' upload is in device_model.cc.
#include "engine/device_session.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "kernels/rope/rope.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

constexpr int64_t kChunkTokens = 64;  // Rows at once in prefill: what the buffers are made for
constexpr int64_t kAlignment = 256;   // Of every buffer, as an allocation of its own would have

// Hands out pieces of one allocation; with base null it only counts.
class Arena {
 public:
  explicit Arena(char* base) : base_(base) {}
  template <class T>
  T* Take(int64_t count) {
    char* at = base_ == nullptr ? nullptr : base_ + size_bytes_;
    size_bytes_ +=
        (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(at);
  }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  char* base_;
  int64_t size_bytes_ = 0;
};

}  // namespace

DeviceSession::DeviceSession(const DeviceModel& model, int64_t capacity, kernels::KvType cache)
    : model_(model), device_(model.device()), cache_type_(cache) {
  const ModelConfig& c = model.config();
  if (cache == kernels::KvType::kF32)
    throw UsageError("a device keeps keys and values in fp16 or int8, not fp32");
  capacity_ = capacity <= 0 ? c.context_length : std::min(capacity, c.context_length);
  pages_ = (capacity_ + kernels::kKvPageTokens - 1) / kernels::kKvPageTokens;
  segments_ = (capacity_ + kernels::kAttentionSegmentTokens - 1) / kernels::kAttentionSegmentTokens;
  widest_ =
      kernels::T2PaddedK(std::max({c.hidden_size, c.intermediate_size, c.num_heads * c.HeadDim()}));
  int64_t size_bytes = 0;
  Place(nullptr, &size_bytes);
  memory_ = device_.Allocate(size_bytes);
  at_ = Place(memory_.data(), &size_bytes);
  host_ = device_.AllocateHost(kChunkTokens * c.vocab_size * static_cast<int64_t>(sizeof(float)));

  std::vector<float> cosine(static_cast<size_t>(capacity_ * c.HeadDim() / 2)), sine(cosine.size());
  kernels::RopeTable(capacity_, c.HeadDim(), c.rope_theta,
                     RopeFactors(c.rope_scaling, c.HeadDim(), c.rope_theta), cosine.data(),
                     sine.data());
  const auto table_bytes = static_cast<int64_t>(cosine.size() * sizeof(float));
  device_.CopyIn(at_.rope_cos, cosine.data(), table_bytes);
  device_.CopyIn(at_.rope_sin, sine.data(), table_bytes);
  std::vector<int32_t> pages(static_cast<size_t>(pages_));
  std::iota(pages.begin(), pages.end(), 0);
  device_.CopyIn(at_.pages, pages.data(), pages_ * static_cast<int64_t>(sizeof(int32_t)));
}

DeviceSession::Buffers DeviceSession::Place(char* base, int64_t* size_bytes) const {
  const ModelConfig& c = model_.config();
  const int64_t m = kChunkTokens, e = c.HeadDim();
  Arena arena(base);
  Buffers b;
  b.x = arena.Take<float>(m * c.hidden_size);
  b.y = arena.Take<float>(m * c.hidden_size);
  b.hidden = arena.Take<float>(m * c.hidden_size);
  b.q = arena.Take<float>(m * c.num_heads * e);
  b.k = arena.Take<float>(m * c.num_kv_heads * e);
  b.v = arena.Take<float>(m * c.num_kv_heads * e);
  b.attended = arena.Take<float>(m * c.num_heads * e);
  b.gate = arena.Take<float>(m * c.intermediate_size);
  b.up = arena.Take<float>(m * c.intermediate_size);
  b.logits = arena.Take<float>(m * c.vocab_size);
  b.gamma = arena.Take<float>(m);
  b.inv_rms = arena.Take<float>(m);
  b.out_scale = arena.Take<float>(m);
  b.states = arena.Take<float>(m * c.num_heads * segments_ * (e + 2));
  b.rope_cos = arena.Take<float>(capacity_ * e / 2);
  b.rope_sin = arena.Take<float>(capacity_ * e / 2);
  b.codes = arena.Take<int8_t>(m * widest_);
  b.sum = arena.Take<int32_t>(m);
  b.ids = arena.Take<int32_t>(m);
  b.positions = arena.Take<int32_t>(m);
  b.pages = arena.Take<int32_t>(pages_);
  b.chosen = arena.Take<int32_t>(1);
  for (int64_t l = 0; l < c.num_layers; ++l)
    b.caches.push_back(
        arena.Take<char>(pages_ * kernels::KvPageBytes(cache_type_, c.num_kv_heads, e)));
  *size_bytes = arena.size_bytes();
  return b;
}

void DeviceSession::CheckTokens(std::span<const int32_t> tokens) const {
  const int64_t count = static_cast<int64_t>(tokens.size());
  const ModelConfig& c = model_.config();
  TERN_CHECK_INPUT(count > 0, "no tokens to run; the prompt is empty");
  TERN_CHECK_INPUT(size_ + count <= capacity_, "the sequence would have ", size_ + count,
                   " tokens; there is room for ", capacity_, " (the model's context is ",
                   c.context_length, "). Shorten the prompt or ask for fewer new tokens");
  for (const int32_t token : tokens)
    TERN_CHECK_INPUT(token >= 0 && token < c.vocab_size, "token id ", token, " is outside of 0 to ",
                     c.vocab_size - 1);
}

std::vector<float> DeviceSession::Append(std::span<const int32_t> tokens, LogitsOf which) {
  CheckTokens(tokens);
  const size_t vocab = static_cast<size_t>(model_.config().vocab_size);
  std::vector<float> logits;
  for (size_t begin = 0; begin < tokens.size(); begin += kChunkTokens) {
    const size_t size = std::min<size_t>(kChunkTokens, tokens.size() - begin);
    Chunk(tokens.subspan(begin, size), which);
    if (which == LogitsOf::kLast && begin + size < tokens.size()) continue;
    const size_t count = (which == LogitsOf::kLast ? 1 : size) * vocab;
    device_.CopyOut(host_.data(), at_.logits, static_cast<int64_t>(count * sizeof(float)));
    device_.Synchronize();
    const float* values = reinterpret_cast<const float*>(host_.data());
    logits.insert(logits.end(), values, values + count);
  }
  return logits;
}

int32_t DeviceSession::AppendGreedy(std::span<const int32_t> tokens) {
  CheckTokens(tokens);
  for (size_t begin = 0; begin < tokens.size(); begin += kChunkTokens)
    Chunk(tokens.subspan(begin, std::min<size_t>(kChunkTokens, tokens.size() - begin)),
          LogitsOf::kLast);
  const int64_t vocab = model_.config().vocab_size;
  device_.Check("argmax", device_.kernels().argmax(at_.logits, 1, vocab, vocab, at_.chosen,
                                                   device_.stream()));
  device_.CopyOut(host_.data(), at_.chosen, sizeof(int32_t));
  device_.Synchronize();
  int32_t chosen = -1;
  std::memcpy(&chosen, host_.data(), sizeof(chosen));
  if (chosen < 0)
    throw NumericError(StrCat("a logit of token ", size_,
                              " is NaN or +Inf, or all are -Inf; the weights of ",
                              model_.weights().source, " do not make a working model"));
  return chosen;
}

void DeviceSession::Chunk(std::span<const int32_t> tokens, LogitsOf which) {
  const ModelConfig& c = model_.config();
  const int64_t m = static_cast<int64_t>(tokens.size()), d = c.hidden_size;
  const kernels::DeviceKernels& run = device_.kernels();
  void* stream = device_.stream();
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(size_));
  const int64_t id_bytes = m * static_cast<int64_t>(sizeof(int32_t));
  device_.CopyIn(at_.ids, tokens.data(), id_bytes);
  device_.CopyIn(at_.positions, positions.data(), id_bytes);
  device_.Check("embedding", run.gather_rows(model_.embedding(), at_.ids, m, at_.x, stream));
  for (size_t l = 0; l < model_.layers().size(); ++l) {
    const kernels::KvPages cache =
        kernels::KvPagesAt(at_.caches[l], cache_type_, c.num_kv_heads, c.HeadDim());
    Attention(model_.layers()[l], cache, m);
    FeedForward(model_.layers()[l], m);
  }
  size_ += m;
  const int64_t rows = which == LogitsOf::kLast ? 1 : m;
  device_.Check("norm", run.rms_norm(at_.x + (m - rows) * d, model_.final_norm(), rows, d,
                                     c.norm_eps, at_.hidden, stream));
  device_.Check("head", run.table_product(model_.head(), at_.hidden, rows, at_.logits, stream));
}

void DeviceSession::Quantize(const float* x, const float* gain, int64_t m, int64_t k) {
  const kernels::DeviceKernels& run = device_.kernels();
  const int64_t padded = kernels::T2PaddedK(k);
  if (gain != nullptr) {
    const kernels::RmsNormQuantizeArgs args{
        x,         gain,   m,         k,       model_.config().norm_eps,
        at_.codes, padded, at_.gamma, at_.sum, at_.inv_rms};
    device_.Check("norm", run.rms_norm_quantize(args, device_.stream()));
  } else {
    const kernels::AbsmaxQuantizeArgs args{x,
                                           at_.codes,
                                           at_.gamma,
                                           at_.sum,
                                           static_cast<int>(m),
                                           static_cast<int>(k),
                                           static_cast<int>(padded),
                                           k,
                                           padded};
    device_.Check("quantize", run.absmax_quantize(args, device_.stream()));
  }
}

void DeviceSession::Multiply(const DeviceModel::Linear& linear, int64_t m, float* y) {
  const kernels::DeviceKernels& run = device_.kernels();
  device_.Check("scale",
                run.out_scale(at_.gamma, linear.scale, m, at_.out_scale, device_.stream()));
  const kernels::TernaryLinearArgs args{
      linear.t2,           at_.codes, at_.sum,         at_.out_scale,   y,
      static_cast<int>(m), linear.n,  linear.padded_k, linear.padded_k, linear.n};
  device_.Check("ternary product", run.ternary_linear(args, device_.stream()));
}

void DeviceSession::Attention(const DeviceModel::Layer& layer, const kernels::KvPages& cache,
                              int64_t m) {
  const ModelConfig& c = model_.config();
  const kernels::DeviceKernels& run = device_.kernels();
  void* stream = device_.stream();
  const int64_t e = c.HeadDim(), heads = c.num_heads, kv_heads = c.num_kv_heads;
  Quantize(at_.x, layer.input_norm, m, c.hidden_size);
  Multiply(layer.q, m, at_.q);
  Multiply(layer.k, m, at_.k);
  Multiply(layer.v, m, at_.v);
  if (c.qk_norm) {
    device_.Check("norm",
                  run.rms_norm(at_.q, layer.q_norm, m * heads, e, c.norm_eps, at_.q, stream));
    device_.Check("norm",
                  run.rms_norm(at_.k, layer.k_norm, m * kv_heads, e, c.norm_eps, at_.k, stream));
  }
  const kernels::KvRows rows{m, at_.positions, nullptr, at_.pages, pages_};
  device_.Check("rope and cache",
                run.rope_kv({at_.q, at_.k, at_.v, heads * e, kv_heads * e, kv_heads * e, heads,
                             kv_heads, e, at_.rope_cos, at_.rope_sin, rows, cache},
                            stream));
  kernels::AttentionArgs args;
  args.q = at_.q;
  args.ldq = args.ldo = heads * e;
  args.shape = {heads, kv_heads, e, 0, 1.0f / std::sqrt(static_cast<float>(e))};
  args.rows = rows;
  args.cache = cache;
  args.states = at_.states;
  args.max_segments = static_cast<int>((size_ + m - 1) / kernels::kAttentionSegmentTokens + 1);
  args.out = at_.attended;
  device_.Check("attention", run.attention(args, stream));
  Quantize(at_.attended, layer.attn_sub_norm, m, heads * e);
  Multiply(layer.o, m, at_.y);
  device_.Check("add", run.add(at_.x, at_.y, m * c.hidden_size, stream));
}

void DeviceSession::FeedForward(const DeviceModel::Layer& layer, int64_t m) {
  const ModelConfig& c = model_.config();
  const kernels::DeviceKernels& run = device_.kernels();
  void* stream = device_.stream();
  Quantize(at_.x, layer.post_norm, m, c.hidden_size);
  Multiply(layer.gate, m, at_.gate);
  Multiply(layer.up, m, at_.up);
  const auto gate = c.activation == Activation::kSilu ? kernels::GateActivation::kSilu
                                                      : kernels::GateActivation::kSquaredRelu;
  device_.Check("gate",
                run.gated_ffn(gate, {at_.gate, at_.up, at_.gate, m * c.intermediate_size}, stream));
  Quantize(at_.gate, layer.ffn_sub_norm, m, c.intermediate_size);
  Multiply(layer.down, m, at_.y);
  device_.Check("add", run.add(at_.x, at_.y, m * c.hidden_size, stream));
}

}  // namespace tern::engine
