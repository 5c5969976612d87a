// See device_session.h.
#include "engine/device_session.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "kernels/rope/rope.h"

namespace tern::engine {
namespace {

constexpr int64_t kChunkTokens = 64;  // Rows at once in prefill: what the buffers are made for

int64_t Bytes(int64_t count) { return count * static_cast<int64_t>(sizeof(float)); }

}  // namespace

DeviceSession::DeviceSession(const DeviceModel& model, const DeviceSessionOptions& options)
    : model_(model), device_(model.device()), options_(options), input_(model.device()) {
  const ModelConfig& c = model.config();
  if (options.cache == kernels::KvType::kF32)
    throw UsageError("a device keeps keys and values in fp16 or int8, not fp32");
  if (options.choices <= 0 || options.choices > c.vocab_size) options_.choices = c.vocab_size;
  if (options.top_k < 1 || options.top_k > std::min<int64_t>(kernels::kTopKMost, options_.choices))
    throw UsageError(StrCat("a device gives the highest 1 to ",
                            std::min<int64_t>(kernels::kTopKMost, options_.choices),
                            " logits; asked for ", options.top_k));
  capacity_ =
      options.capacity <= 0 ? c.context_length : std::min(options.capacity, c.context_length);
  pages_ = (capacity_ + kernels::kKvPageTokens - 1) / kernels::kKvPageTokens;
  segments_ = (capacity_ + kernels::kAttentionSegmentTokens - 1) / kernels::kAttentionSegmentTokens;
  const auto sizes = std::bit_width(static_cast<uint64_t>(segments_ - 1)) + 1;
  for (auto& steps : steps_) steps.resize(static_cast<size_t>(sizes));
  DeviceArena count(nullptr), count_host(nullptr);
  PlaceBuffers(&count);
  PlaceStaging(&count_host);
  memory_ = device_.Allocate(count.size_bytes());
  host_ = device_.AllocateHost(count_host.size_bytes());
  DeviceArena arena(memory_.data()), host_arena(host_.data());
  PlaceBuffers(&arena);
  PlaceStaging(&host_arena);
  FillConstants();
}

void DeviceSession::PlaceBuffers(DeviceArena* arena) {
  const ModelConfig& c = model_.config();
  const int64_t m = kChunkTokens, e = c.HeadDim();
  input_.Place({m, std::max({c.hidden_size, c.intermediate_size, c.num_heads * e}),
                model_.ExpandedWeights(), model_.RoundsInputs()},
               arena);
  Buffers& b = at_;
  b.x = arena->Take<float>(m * c.hidden_size);
  b.y = arena->Take<float>(m * c.hidden_size);
  b.normed = c.HasInputNorms() ? arena->Take<float>(m * c.hidden_size) : nullptr;
  b.q = arena->Take<float>(m * c.num_heads * e);
  b.k = arena->Take<float>(m * c.num_kv_heads * e);
  b.v = arena->Take<float>(m * c.num_kv_heads * e);
  b.attended = arena->Take<float>(m * c.num_heads * e);
  b.gate = arena->Take<float>(m * c.intermediate_size);
  b.up = arena->Take<float>(m * c.intermediate_size);
  b.logits = arena->Take<float>(m * c.vocab_size);
  b.states = arena->Take<float>(m * c.num_heads * segments_ * (e + 2));
  b.rope_cos = arena->Take<float>(capacity_ * e / 2);
  b.rope_sin = arena->Take<float>(capacity_ * e / 2);
  b.ids = arena->Take<int32_t>(m);
  b.positions = arena->Take<int32_t>(m);
  b.pages = arena->Take<int32_t>(pages_);
  b.best = arena->Take<kernels::TokenLogit>(options_.top_k);
  b.caches.clear();
  for (int64_t l = 0; l < c.num_layers; ++l)
    b.caches.push_back(
        arena->Take<char>(pages_ * kernels::KvPageBytes(options_.cache, c.num_kv_heads, e)));
}

void DeviceSession::PlaceStaging(DeviceArena* arena) {
  host_at_.ids = arena->Take<int32_t>(kChunkTokens);
  host_at_.positions = arena->Take<int32_t>(kChunkTokens);
  host_at_.best = arena->Take<kernels::TokenLogit>(options_.top_k);
  host_at_.logits = arena->Take<float>(kChunkTokens * model_.config().vocab_size);
}

void DeviceSession::FillConstants() {
  const ModelConfig& c = model_.config();
  std::vector<float> cosine(static_cast<size_t>(capacity_ * c.HeadDim() / 2)), sine(cosine.size());
  kernels::RopeTable(capacity_, c.HeadDim(), c.rope_theta,
                     RopeFactors(c.rope_scaling, c.HeadDim(), c.rope_theta), cosine.data(),
                     sine.data());
  device_.CopyIn(at_.rope_cos, cosine.data(), Bytes(static_cast<int64_t>(cosine.size())));
  device_.CopyIn(at_.rope_sin, sine.data(), Bytes(static_cast<int64_t>(sine.size())));
  std::vector<int32_t> pages(static_cast<size_t>(pages_));
  std::iota(pages.begin(), pages.end(), 0);
  device_.CopyIn(at_.pages, pages.data(), Bytes(pages_));
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

std::span<const float> DeviceSession::Append(std::span<const int32_t> tokens) {
  Run(tokens, Output::kLast, [](int64_t) {});
  return {host_at_.logits, static_cast<size_t>(model_.config().vocab_size)};
}

std::vector<float> DeviceSession::AppendAll(std::span<const int32_t> tokens) {
  std::vector<float> logits;
  Run(tokens, Output::kAll, [&](int64_t m) {
    logits.insert(logits.end(), host_at_.logits, host_at_.logits + m * model_.config().vocab_size);
  });
  return logits;
}

std::span<const kernels::TokenLogit> DeviceSession::AppendTop(std::span<const int32_t> tokens) {
  Run(tokens, Output::kTop, [](int64_t) {});
  return {host_at_.best, static_cast<size_t>(options_.top_k)};
}

template <class Take>
void DeviceSession::Run(std::span<const int32_t> tokens, Output output, const Take& take) {
  CheckTokens(tokens);
  for (size_t begin = 0; begin < tokens.size(); begin += kChunkTokens) {
    const std::span chunk =
        tokens.subspan(begin, std::min<size_t>(kChunkTokens, tokens.size() - begin));
    const bool last = begin + chunk.size() == tokens.size();
    const auto m = static_cast<int64_t>(chunk.size());
    std::copy(chunk.begin(), chunk.end(), host_at_.ids);
    std::iota(host_at_.positions, host_at_.positions + m, static_cast<int32_t>(size_));
    // As many as a power of two, so that few steps are recorded.
    const int64_t seen = (size_ + m - 1) / kernels::kAttentionSegmentTokens + 1;
    const auto power = std::bit_width(static_cast<uint64_t>(seen - 1));
    const auto segments = static_cast<int>(std::min(int64_t{1} << power, segments_));
    const Output wanted = last || output == Output::kAll ? output : Output::kNone;
    if (m == 1 && (wanted == Output::kLast || wanted == Output::kTop)) {
      Replay(&steps_[wanted == Output::kTop][static_cast<size_t>(power)], wanted, segments);
    } else {
      Queue(m, wanted, segments);
    }
    device_.Synchronize();  // Also before the staging is written again
    size_ += m;
    if (wanted != Output::kNone) take(m);
  }
}

void DeviceSession::Replay(Step* step, Output output, int segments) {
  if (!step->ran) {
    Queue(1, output, segments);
    step->ran = true;
    return;
  }
  if (step->recording.get() == nullptr)
    step->recording = device_.Record([&] { Queue(1, output, segments); });
  device_.Replay(step->recording);
  ++replayed_;
}

void DeviceSession::Queue(int64_t m, Output output, int segments) {
  const ModelConfig& c = model_.config();
  device_.CopyInLater(at_.ids, host_at_.ids, Bytes(m));
  device_.CopyInLater(at_.positions, host_at_.positions, Bytes(m));
  device_.Check("embedding", device_.kernels().gather_rows(model_.embedding(), at_.ids, m, at_.x,
                                                           device_.stream()));
  for (size_t l = 0; l < model_.layers().size(); ++l) {
    const kernels::KvPages cache =
        kernels::KvPagesAt(at_.caches[l], options_.cache, c.num_kv_heads, c.HeadDim());
    Attention(model_.layers()[l], c.WindowOf(static_cast<int64_t>(l)), cache, m, segments);
    FeedForward(model_.layers()[l], m);
  }
  Finish(m, output);
}

void DeviceSession::Finish(int64_t m, Output output) {
  if (output == Output::kNone) return;
  const ModelConfig& c = model_.config();
  const int64_t rows = output == Output::kAll ? m : 1;
  input_.Set(at_.x + (m - rows) * c.hidden_size, rows, c.hidden_size, model_.final_norm(),
             c.norm_eps);
  input_.MultiplyTable(model_.head(), at_.logits);
  if (output != Output::kTop)
    return device_.CopyOut(host_at_.logits, at_.logits, Bytes(rows * c.vocab_size));
  const kernels::TopKArgs args{at_.logits,       at_.best,     1,
                               options_.choices, c.vocab_size, options_.top_k};
  device_.Check("top-k", device_.kernels().top_k(args, device_.stream()));
  device_.CopyOut(host_at_.best, at_.best,
                  options_.top_k * static_cast<int64_t>(sizeof(kernels::TokenLogit)));
}

void DeviceSession::Project(int64_t m, const float* pre_norm,
                            std::initializer_list<Branch> branches) {
  const ModelConfig& c = model_.config();
  if (!c.HasInputNorms()) {
    input_.Set(at_.x, m, c.hidden_size, pre_norm, c.norm_eps);
    for (const Branch& branch : branches) input_.Multiply(branch.w, branch.y);
    return;
  }
  const float* x = at_.x;
  if (c.HasPreNorms()) {
    device_.Check("norm", device_.kernels().rms_norm(at_.x, pre_norm, m, c.hidden_size, c.norm_eps,
                                                     at_.normed, device_.stream()));
    x = at_.normed;
  }
  for (const Branch& branch : branches) {
    input_.Set(x, m, c.hidden_size, branch.own_norm, c.norm_eps);
    input_.Multiply(branch.w, branch.y);
  }
}

void DeviceSession::Attention(const DeviceModel::Layer& layer, int64_t window,
                              const kernels::KvPages& cache, int64_t m, int segments) {
  const ModelConfig& c = model_.config();
  const kernels::DeviceKernels& run = device_.kernels();
  void* stream = device_.stream();
  const int64_t e = c.HeadDim(), heads = c.num_heads, kv_heads = c.num_kv_heads;
  const auto add_bias = [&](const float* bias, float* y, int64_t n) {
    if (bias != nullptr) device_.Check("bias", run.add_bias(y, bias, m, n, stream));
  };
  const auto norm = [&](const float* gain, float* y, int64_t rows) {
    if (gain != nullptr)
      device_.Check("norm", run.rms_norm(y, gain, rows, e, c.norm_eps, y, stream));
  };
  Project(
      m, layer.input_norm,
      {{layer.q, layer.q_in, at_.q}, {layer.k, layer.k_in, at_.k}, {layer.v, layer.v_in, at_.v}});
  add_bias(layer.q_bias, at_.q, heads * e);
  add_bias(layer.k_bias, at_.k, kv_heads * e);
  add_bias(layer.v_bias, at_.v, kv_heads * e);
  norm(layer.q_norm, at_.q, m * heads);
  norm(layer.k_norm, at_.k, m * kv_heads);
  const kernels::KvRows rows{m, at_.positions, nullptr, at_.pages, pages_};
  device_.Check("rope and cache",
                run.rope_kv({at_.q, at_.k, at_.v, heads * e, kv_heads * e, kv_heads * e, heads,
                             kv_heads, e, at_.rope_cos, at_.rope_sin, rows, cache},
                            stream));
  kernels::AttentionArgs args;
  args.q = at_.q;
  args.ldq = args.ldo = heads * e;
  args.shape = {heads, kv_heads, e, window, 1.0f / std::sqrt(static_cast<float>(e))};
  args.rows = rows;
  args.cache = cache;
  args.states = at_.states;
  args.max_segments = segments;
  args.out = at_.attended;
  device_.Check("attention", run.attention(args, stream));
  input_.Set(at_.attended, m, heads * e, layer.o_in, c.norm_eps);
  input_.Multiply(layer.o, at_.y);
  device_.Check("add", run.add(at_.x, at_.y, m * c.hidden_size, stream));
}

void DeviceSession::FeedForward(const DeviceModel::Layer& layer, int64_t m) {
  const ModelConfig& c = model_.config();
  const kernels::DeviceKernels& run = device_.kernels();
  void* stream = device_.stream();
  Project(m, layer.post_norm,
          {{layer.gate, layer.gate_in, at_.gate}, {layer.up, layer.up_in, at_.up}});
  const auto gate = c.activation == Activation::kSilu ? kernels::GateActivation::kSilu
                                                      : kernels::GateActivation::kSquaredRelu;
  device_.Check("gate",
                run.gated_ffn(gate, {at_.gate, at_.up, at_.gate, m * c.intermediate_size}, stream));
  input_.Set(at_.gate, m, c.intermediate_size, layer.down_in, c.norm_eps);
  input_.Multiply(layer.down, at_.y);
  device_.Check("add", run.add(at_.x, at_.y, m * c.hidden_size, stream));
}

}  // namespace tern::engine
