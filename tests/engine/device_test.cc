// Models on a device, here the emulator: logits bit for bit those of the CPU kernels put together
// in the same order with the same cache, tokens those of a Session, and a fault planted into the
// device's barriers is seen. Where there is no GPU, "cuda" says so.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "engine/device_session.h"
#include "engine/gguf_model.h"
#include "engine/linear.h"
#include "kernels/gated_ffn/gated_ffn.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

#if defined(TERN_HAVE_SIMT)
#include "kernels/simt/launch.h"
#endif

namespace tern::testing {
namespace {

using kernels::KvType;

#if defined(TERN_HAVE_SIMT)

// The forward of a model by CPU kernels over a paged cache: what a device must equal.
class HostForward {
 public:
  HostForward(const engine::ModelWeights& weights, KvType type)
      : w_(weights), c_(weights.config), type_(type), pages_(c_.context_length / 32 + 1) {
    const auto page = kernels::KvPageBytes(type, c_.num_kv_heads, c_.HeadDim());
    caches_.assign(static_cast<size_t>(c_.num_layers),
                   std::vector<char>(static_cast<size_t>(page * pages_)));
    tables_.resize(static_cast<size_t>(pages_));
    std::iota(tables_.begin(), tables_.end(), 0);
    cosine_.resize(static_cast<size_t>(c_.context_length * c_.HeadDim() / 2));
    sine_.resize(cosine_.size());
    kernels::RopeTable(c_.context_length, c_.HeadDim(), c_.rope_theta, cosine_.data(),
                       sine_.data());
  }

  // From an empty sequence.
  std::vector<float> Logits(const std::vector<int32_t>& tokens) {
    m_ = static_cast<int64_t>(tokens.size());
    positions_.resize(tokens.size());
    std::iota(positions_.begin(), positions_.end(), 0);
    Rows x(static_cast<size_t>(m_ * c_.hidden_size));
    for (int64_t i = 0; i < m_; ++i)
      engine::CopyRow(w_.embedding, tokens[static_cast<size_t>(i)], x.data() + i * c_.hidden_size);
    for (size_t l = 0; l < w_.layers.size(); ++l) {
      Add(&x, Attention(w_.layers[l], caches_[l].data(), x));
      Add(&x, FeedForward(w_.layers[l], x));
    }
    return engine::MultiplyTable(Norm(x, w_.final_norm).data(), m_,
                                 w_.head ? *w_.head : w_.embedding, SerialFor);
  }

 private:
  using Rows = std::vector<float>;

  static void Add(Rows* x, const Rows& y) {
    for (size_t i = 0; i < y.size(); ++i) (*x)[i] += y[i];
  }
  Rows Norm(const Rows& x, const Rows& gain) const {
    if (gain.empty()) return x;
    const auto d = static_cast<int64_t>(gain.size()), rows = static_cast<int64_t>(x.size()) / d;
    Rows y(x.size()), inverse(static_cast<size_t>(rows));
    kernels::RmsNormForward(x.data(), gain.data(), rows, d, c_.norm_eps, y.data(), inverse.data(),
                            SerialFor);
    return y;
  }
  Rows Linear(const Rows& x, const engine::LinearMatrix& matrix) const {
    return engine::MultiplyAll(x, m_, {&matrix}, w_.activation, SerialFor)[0];
  }
  Rows Rotated(Rows x, int64_t heads) const {
    kernels::Rope(x.data(), m_, heads, c_.HeadDim(), heads * c_.HeadDim(), positions_.data(),
                  cosine_.data(), sine_.data(), kernels::RopeDirection::kForward, SerialFor);
    return x;
  }
  Rows Attention(const engine::LayerWeights& layer, char* cache, const Rows& x) {
    const int64_t e = c_.HeadDim();
    const Rows in = Norm(x, layer.input_norm);
    const Rows q = Rotated(Norm(Linear(in, layer.q), layer.q_norm), c_.num_heads);
    const Rows k = Rotated(Norm(Linear(in, layer.k), layer.k_norm), c_.num_kv_heads);
    const Rows v = Linear(in, layer.v);
    const kernels::KvRows rows{m_, positions_.data(), nullptr, tables_.data(), pages_};
    const kernels::KvPages pages = kernels::KvPagesAt(cache, type_, c_.num_kv_heads, e);
    kernels::WriteKv(k.data(), c_.num_kv_heads * e, v.data(), c_.num_kv_heads * e, c_.num_kv_heads,
                     e, rows, pages, SerialFor);
    Rows out(q.size());
    kernels::PagedAttention(
        q.data(), c_.num_heads * e,
        {c_.num_heads, c_.num_kv_heads, e, 0, 1.0f / std::sqrt(static_cast<float>(e))}, rows, pages,
        out.data(), c_.num_heads * e, SerialFor);
    return Linear(Norm(out, layer.attn_sub_norm), layer.o);
  }
  Rows FeedForward(const engine::LayerWeights& layer, const Rows& x) const {
    const Rows in = Norm(x, layer.post_norm);
    Rows h = Linear(in, layer.gate);
    const Rows up = Linear(in, layer.up);
    kernels::GatedFfnForward(
        c_.activation == Activation::kSilu ? kernels::GateActivation::kSilu
                                           : kernels::GateActivation::kSquaredRelu,
        h.data(), up.data(), static_cast<int64_t>(h.size()), h.data(), SerialFor);
    return Linear(Norm(h, layer.ffn_sub_norm), layer.down);
  }

  const engine::ModelWeights& w_;
  const ModelConfig& c_;
  KvType type_;
  int64_t pages_, m_ = 0;
  std::vector<std::vector<char>> caches_;
  std::vector<int32_t> tables_, positions_;
  std::vector<float> cosine_, sine_;
};

class DeviceTest : public ::testing::TestWithParam<ArchName> {
 protected:
  engine::ModelWeights Model(ArchName arch, const GgufOptions& options = {}) {
    const std::string path = folder_ / "model.gguf";
    WriteGguf(MakeTinyModel(TinyConfig(arch), 5), arch, path, options);
    return engine::LoadGguf(path);
  }

  void TearDown() override { simt::EmulatorOptions() = {}; }

  TempFolder folder_;
  std::unique_ptr<kernels::Device> device_ = kernels::Device::Open("simt");
};

TEST_P(DeviceTest, LogitsAreThoseOfTheCpuKernels) {
  const engine::ModelWeights weights = Model(GetParam());
  const engine::DeviceModel model(weights, *device_);
  const auto tokens = RandomTokens(6, weights.config.vocab_size, 3);
  for (KvType type : {KvType::kF16, KvType::kInt8}) {
    const auto want = HostForward(weights, type).Logits(tokens);
    EXPECT_EQ(engine::DeviceSession(model, 64, type).Append(tokens, engine::LogitsOf::kAll), want);
    // In pieces, and the last position alone.
    engine::DeviceSession pieces(model, 64, type);
    pieces.Append(std::span(tokens).first(2));
    pieces.Append(std::span(tokens).subspan(2, 3));
    const auto last = pieces.Append(std::span(tokens).last(1));
    EXPECT_TRUE(std::equal(last.begin(), last.end(), want.end() - weights.config.vocab_size));
  }
}

INSTANTIATE_TEST_SUITE_P(Archs, DeviceTest,
                         ::testing::Values(ArchName::kLlama, ArchName::kQwen3, ArchName::kBitnet,
                                           ArchName::kBitnet158));

using DeviceSlowTest = DeviceTest;

// Beyond a chunk of the prompt, a page and a segment of attention.
TEST_F(DeviceSlowTest, ALongPromptIsTheSame) {
  const engine::ModelWeights weights = Model(ArchName::kBitnet);
  const engine::DeviceModel model(weights, *device_);
  const auto tokens = RandomTokens(262, weights.config.vocab_size, 4);
  const auto want = HostForward(weights, KvType::kF16).Logits(tokens);
  const auto last = engine::DeviceSession(model).Append(tokens);
  EXPECT_TRUE(std::equal(last.begin(), last.end(), want.end() - weights.config.vocab_size));
}

// Tables as files have them: fp16 and Q8_0 rows are not decoded on the way.
TEST_F(DeviceTest, TablesKeepTheTypeOfTheFile) {
  for (auto type : {formats::GgmlType::kF16, formats::GgmlType::kQ8_0, formats::GgmlType::kBf16}) {
    GgufOptions options;
    options.table = type;
    const engine::ModelWeights weights = Model(ArchName::kLlama, options);
    const engine::DeviceModel model(weights, *device_);
    const auto tokens = RandomTokens(3, weights.config.vocab_size, 3);
    EXPECT_EQ(engine::DeviceSession(model, 8).Append(tokens, engine::LogitsOf::kAll),
              HostForward(weights, KvType::kF16).Logits(tokens));
  }
}

TEST_F(DeviceTest, GreedyTokensAreThoseOfASession) {
  engine::ModelWeights weights = Model(ArchName::kLlama);
  const engine::DeviceModel model(weights, *device_);
  const auto prompt = RandomTokens(9, weights.config.vocab_size, 6);
  std::vector<int32_t> on_device, on_cpu;
  engine::DeviceSession device_session(model, 64);
  int32_t next = device_session.AppendGreedy(prompt);
  for (int i = 0; i < 8; ++i) {
    on_device.push_back(next);
    next = device_session.AppendGreedy({&next, 1});
  }
  const engine::Engine engine(std::move(weights), 1);
  engine::Session session(engine, 64);
  std::vector<float> logits = session.Append(prompt);
  for (int i = 0; i < 8; ++i) {
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    on_cpu.push_back(static_cast<int32_t>(best));
    logits = session.Append({&on_cpu.back(), 1});
  }
  EXPECT_EQ(on_device, on_cpu);
}

TEST_F(DeviceTest, AMissingBarrierIsSeen) {
  const engine::ModelWeights weights = Model(ArchName::kLlama);
  const engine::DeviceModel model(weights, *device_);
  const auto tokens = RandomTokens(5, weights.config.vocab_size, 3);
  const auto want = HostForward(weights, KvType::kF16).Logits(tokens);
  simt::EmulatorOptions() = {.shuffle = true, .seed = 3};
  EXPECT_EQ(engine::DeviceSession(model, 32).Append(tokens, engine::LogitsOf::kAll), want);
  simt::EmulatorOptions() = {.skip_block_barriers = true};
#if !defined(TERN_SIMT_TSAN)  // There the race itself ends the program.
  EXPECT_NE(engine::DeviceSession(model, 32).Append(tokens, engine::LogitsOf::kAll), want);
#endif
}

TEST_F(DeviceTest, RefusesWhatItDoesNotRun) {
  engine::ModelWeights weights = Model(ArchName::kLlama);
  {
    const engine::DeviceModel model(weights, *device_);
    engine::DeviceSession session(model, 4);
    EXPECT_THROW(session.Append({}), InputError);
    EXPECT_THROW(session.Append(std::vector<int32_t>{1, 2, 3, 4, 5}), InputError);
    EXPECT_THROW(session.Append(std::vector<int32_t>{-1}), InputError);
    EXPECT_EQ(session.size(), 0);
  }
  weights.activation = engine::ActivationRule::kNone;
  EXPECT_THROW(engine::DeviceModel(weights, *device_), InputError);
  weights.activation = engine::ActivationRule::kInt8Token;
  weights.layers[1].up = engine::DenseMatrix{};
  EXPECT_THROW(engine::DeviceModel(weights, *device_), InputError);
}

#endif

TEST(DeviceNameTest, WrongNamesAreUsageErrors) {
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda1", ":1", "simt:0"})
    EXPECT_THROW(kernels::Device::Open(name), UsageError) << name;
}

}  // namespace
}  // namespace tern::testing
