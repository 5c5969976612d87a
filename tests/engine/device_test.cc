// Models on a device, here the emulator: logits and tokens bit for bit those of a Session with the
// same type of cache, and a fault planted into the device's barriers is seen. Where there is no
// GPU, "cuda" says so.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "engine/device_session.h"
#include "engine/generate.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_vocabulary.h"
#include "tests/engine/tiny_weights.h"
#include "tests/testing/temp_folder.h"

#if defined(TERN_HAVE_SIMT)
#include "kernels/simt/launch.h"
#endif

namespace tern::testing {
namespace {

using kernels::KvType;

#if defined(TERN_HAVE_SIMT)

// All logits of a Session from an empty sequence, with the device's type of cache.
std::vector<float> CpuLogits(const engine::Engine& engine, KvType type,
                             const std::vector<int32_t>& tokens) {
  return engine::Session(engine, 0, type).Append(tokens, engine::LogitsOf::kAll);
}

class DeviceTest : public ::testing::TestWithParam<ArchName> {
 protected:
  engine::ModelWeights Model(ArchName arch, const GgufOptions& options = {}) {
    const std::string path = folder_ / "model.gguf";
    WriteGguf(MakeTinyModel(TinyConfig(arch), 5), arch, path, options);
    return engine::LoadModel(path);
  }

  void TearDown() override { simt::EmulatorOptions() = {}; }

  void ExpectTextsOfTheCpu(const text::PieceTable& table);

  TempFolder folder_;
  std::unique_ptr<kernels::Device> device_ = kernels::Device::Open("simt");
};

TEST_P(DeviceTest, LogitsAreThoseOfTheCpuKernels) {
  const engine::Engine engine(Model(GetParam()), 1);
  const engine::DeviceModel model(engine.weights(), *device_);
  const auto tokens = RandomTokens(6, engine.config().vocab_size, 3);
  for (KvType type : {KvType::kF16, KvType::kInt8}) {
    const auto want = CpuLogits(engine, type, tokens);
    EXPECT_EQ(engine::DeviceSession(model, {64, type}).AppendAll(tokens), want);
    // In pieces, and the last position alone.
    engine::DeviceSession pieces(model, {64, type});
    pieces.Append(std::span(tokens).first(2));
    pieces.Append(std::span(tokens).subspan(2, 3));
    const auto last = pieces.Append(std::span(tokens).last(1));
    EXPECT_TRUE(std::equal(last.begin(), last.end(), want.end() - engine.config().vocab_size));
  }
}

INSTANTIATE_TEST_SUITE_P(Archs, DeviceTest,
                         ::testing::Values(ArchName::kLlama, ArchName::kQwen3, ArchName::kBitnet,
                                           ArchName::kBitnet158));

// Norms of every linear layer's own, behind pre-norms and without.
TEST_F(DeviceTest, NormsOfEveryLinearLayer) {
  for (const SubNorms sub_norms : {SubNorms::kEveryLinear, SubNorms::kEveryLinearOnly}) {
    for (const LinearKind linear : {LinearKind::kBitLinear, LinearKind::kDense}) {
      ModelConfig config = TinyConfig(ArchName::kLlama, linear);
      config.sub_norms = sub_norms;
      const engine::Engine engine(WeightsOf(MakeTinyModel(config, 6)), 1);
      const engine::DeviceModel model(engine.weights(), *device_);
      const auto tokens = RandomTokens(6, config.vocab_size, 3);
      EXPECT_EQ(engine::DeviceSession(model, {64, KvType::kF16}).AppendAll(tokens),
                CpuLogits(engine, KvType::kF16, tokens))
          << ToString(sub_norms) << " " << ToString(linear);
    }
  }
}

using DeviceSlowTest = DeviceTest;

// Beyond a chunk of the prompt, a page and a segment of attention.
TEST_F(DeviceSlowTest, ALongPromptIsTheSame) {
  const engine::Engine engine(Model(ArchName::kBitnet), 1);
  const engine::DeviceModel model(engine.weights(), *device_);
  const auto tokens = RandomTokens(262, engine.config().vocab_size, 4);
  const auto want = CpuLogits(engine, KvType::kF16, tokens);
  const auto last = engine::DeviceSession(model).Append(tokens);
  EXPECT_TRUE(std::equal(last.begin(), last.end(), want.end() - engine.config().vocab_size));
}

// Tables as files have them: fp16 and Q8_0 rows are not decoded on the way.
TEST_F(DeviceTest, TablesKeepTheTypeOfTheFile) {
  for (auto type : {formats::GgmlType::kF16, formats::GgmlType::kQ8_0, formats::GgmlType::kBf16}) {
    GgufOptions options;
    options.table = type;
    const engine::Engine engine(Model(ArchName::kLlama, options), 1);
    const engine::DeviceModel model(engine.weights(), *device_);
    const auto tokens = RandomTokens(3, engine.config().vocab_size, 3);
    EXPECT_EQ(engine::DeviceSession(model, {8}).AppendAll(tokens),
              CpuLogits(engine, KvType::kF16, tokens));
  }
}

TEST_F(DeviceTest, GreedyTokensAreThoseOfASession) {
  const engine::Engine engine(Model(ArchName::kLlama), 1);
  const engine::DeviceModel model(engine.weights(), *device_);
  const auto prompt = RandomTokens(9, engine.config().vocab_size, 6);
  std::vector<int32_t> on_device, on_cpu;
  engine::DeviceSession device_session(model, {64});
  int32_t next = device_session.AppendTop(prompt)[0].id;
  for (int i = 0; i < 8; ++i) {
    on_device.push_back(next);
    next = device_session.AppendTop({&next, 1})[0].id;
  }
  engine::Session session(engine, 64, KvType::kF16);
  std::vector<float> logits = session.Append(prompt);
  for (int i = 0; i < 8; ++i) {
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    on_cpu.push_back(static_cast<int32_t>(best));
    logits = session.Append({&on_cpu.back(), 1});
  }
  EXPECT_EQ(on_device, on_cpu);
}

// Greedy, a few candidates from the device, all logits: the text is the CPU's.
void DeviceTest::ExpectTextsOfTheCpu(const text::PieceTable& table) {
  GgufOptions files;
  files.tokenizer = &table;
  ModelConfig config = TinyConfig(ArchName::kLlama);
  config.vocab_size = static_cast<int64_t>(table.pieces.size()) + 3;  // Rows without a token
  const std::string path = folder_ / "text.gguf";
  WriteGguf(MakeTinyModel(config, 5), ArchName::kLlama, path, files);
  const engine::Engine engine(engine::LoadModel(path), 1);
  const engine::DeviceModel model(engine.weights(), *device_);
  for (const engine::SamplingOptions& sampling :
       {engine::SamplingOptions{}, engine::SamplingOptions{1.2, 20, 0.95, 3},
        engine::SamplingOptions{1.2, 0, 0.9, 3}, engine::SamplingOptions{0, 0, 1, 3, 0, 5}}) {
    engine::GenerateOptions options;
    options.max_tokens = 12;
    options.sampling = sampling;
    EXPECT_EQ(engine::GenerateOnDevice(model, "ab", options, {}).text,
              engine::Generate(engine, "ab", options, {}).text);
  }
}

TEST_F(DeviceTest, GeneratesTheTextOfTheCpu) { ExpectTextsOfTheCpu(ByteVocabulary()); }

// All choices are few enough for the device's top-k, which knows no repetition penalty.
TEST_F(DeviceTest, GeneratesTheTextOfTheCpuFromFewChoices) {
  text::PieceTable table = ByteVocabulary();
  const auto drop_bytes = [](auto& list) {
    list.erase(list.begin() + kFirstByteId, list.begin() + kFirstByteId + 256);
  };
  drop_bytes(table.pieces);
  drop_bytes(table.types);
  drop_bytes(table.scores);
  ExpectTextsOfTheCpu(table);
}

TEST_F(DeviceTest, AMissingBarrierIsSeen) {
  const engine::Engine engine(Model(ArchName::kLlama), 1);
  const engine::DeviceModel model(engine.weights(), *device_);
  const auto tokens = RandomTokens(5, engine.config().vocab_size, 3);
  const auto want = CpuLogits(engine, KvType::kF16, tokens);
  simt::EmulatorOptions() = {.shuffle = true, .seed = 3};
  EXPECT_EQ(engine::DeviceSession(model, {32}).AppendAll(tokens), want);
  simt::EmulatorOptions() = {.skip_block_barriers = true};
#if !defined(TERN_SIMT_TSAN)  // There the race itself ends the program.
  EXPECT_NE(engine::DeviceSession(model, {32}).AppendAll(tokens), want);
#endif
}

TEST_F(DeviceTest, RefusesWhatItDoesNotRun) {
  engine::ModelWeights weights = Model(ArchName::kLlama);
  {
    const engine::DeviceModel model(weights, *device_);
    engine::DeviceSession session(model, {4});
    EXPECT_THROW(engine::DeviceSession(model, {4, KvType::kF32}), UsageError);
    for (int64_t top_k : {-1, 0, 257})
      EXPECT_THROW(engine::DeviceSession(model, {4, KvType::kF16, 0, top_k}), UsageError);
    EXPECT_THROW(session.Append({}), InputError);
    EXPECT_THROW(session.Append(std::vector<int32_t>{1, 2, 3, 4, 5}), InputError);
    EXPECT_THROW(session.Append(std::vector<int32_t>{-1}), InputError);
    EXPECT_EQ(session.size(), 0);
  }
  weights.config.head_dim = 512;
  EXPECT_THROW(engine::DeviceModel(weights, *device_), InputError);
}

#endif

TEST(DeviceNameTest, WrongNamesAreUsageErrors) {
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda1", ":1", "simt:0"})
    EXPECT_THROW(kernels::Device::Open(name), UsageError) << name;
}

}  // namespace
}  // namespace tern::testing
