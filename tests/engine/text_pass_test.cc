// Many texts at once, layer by layer: the bits of one Session a text, in a stated memory.
#include "engine/text_pass.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <filesystem>
#include <span>

#include "base/error.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/kept_weights.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "tests/engine/tiny_blocks.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::TextPass;
using formats::GgmlType;

class TextPassTest : public ::testing::Test {
 protected:
  std::string Write(ArchName arch, LinearKind linear, GgmlType type) {
    const std::string path = folder_ / StrCat("model", ++files_, ".gguf");
    TinyModel model = MakeTinyModel(TinyConfig(arch, linear), 3);
    GgufOptions options;
    TinyBlocks blocks;
    options.linear = type;
    if (linear == LinearKind::kDense && type != GgmlType::kF32) {
      blocks = MakeBlocks(type, GgmlType::kQ8_0, &model, 5);
      options.blocks = &blocks;
    }
    WriteGguf(model, arch, path, options);
    return path;
  }

  // Logits of all tokens of all texts, made `rows` at a time.
  static std::vector<float> Together(const engine::ModelWeights& weights,
                                     const std::vector<std::vector<int32_t>>& texts, int threads,
                                     int64_t rows) {
    ThreadPool pool(threads);
    const ParallelFor parallel = pool.Runner();
    TextPass pass(weights, 300, parallel);
    std::vector<std::span<const int32_t>> spans(texts.begin(), texts.end());
    int64_t all = 0;
    for (const auto& text : texts) all += std::ssize(text);
    std::vector<float> x(static_cast<size_t>(all * weights.config.hidden_size)),
        logits(static_cast<size_t>(all * weights.config.vocab_size));
    for (int run = 0; run < 2; ++run) {  // Pages that were written before
      pass.Run(spans, x.data());
      for (int64_t begin = 0; begin < all; begin += rows) {
        pass.Logits(x.data() + begin * weights.config.hidden_size, std::min(rows, all - begin),
                    logits.data() + begin * weights.config.vocab_size);
      }
    }
    return logits;
  }

  TempFolder folder_;
  int files_ = 0;
};

// Texts that end within, at and behind the 256 rows of a pass, one that spans two, many short ones.
std::vector<std::vector<int32_t>> Texts() {
  std::vector<std::vector<int32_t>> texts;
  for (const int64_t length : {1, 33, 200, 22, 300, 1, 1, 64, 290, 256, 1})
    texts.push_back(RandomTokens(length, 40, 100 + texts.size()));
  for (int i = 0; i < 300; ++i) texts.push_back({i % 40});
  return texts;
}

TEST_F(TextPassTest, HasTheBitsOfASessionForEachText) {
  const std::vector<std::vector<int32_t>> texts = Texts();
  for (const auto& [arch, linear, type] :
       {std::tuple(ArchName::kLlama, LinearKind::kDense, GgmlType::kF32),
        {ArchName::kQwen2, LinearKind::kDense, GgmlType::kQ4_1},
        {ArchName::kQwen3, LinearKind::kDense, GgmlType::kQ4_K},
        {ArchName::kBitnet, LinearKind::kBitLinear, GgmlType::kTq2_0}}) {
    const std::string path = Write(arch, linear, type);
    const engine::Engine engine(engine::LoadModel(path), 2);
    std::vector<float> want;
    for (const auto& text : texts) {
      const auto some = engine::Session(engine).Append(text, engine::LogitsOf::kAll);
      want.insert(want.end(), some.begin(), some.end());
    }
    const engine::ModelWeights weights = engine::LoadModel(path);
    EXPECT_TRUE(Together(weights, texts, 1, 1000) == want) << path;
    EXPECT_TRUE(Together(weights, texts, 3, 77) == want) << path;
  }
}

TEST_F(TextPassTest, RefusesWhatIsNoText) {
  const engine::ModelWeights weights =
      engine::LoadModel(Write(ArchName::kLlama, LinearKind::kDense, GgmlType::kF32));
  const ParallelFor serial = SerialFor;
  EXPECT_THROW(TextPass(weights, 301, serial), InputError);
  TextPass pass(weights, 4, serial);
  std::vector<float> x(5 * 256);
  const auto run = [&](const std::vector<int32_t>& text) {
    const std::span<const int32_t> texts[] = {text};
    pass.Run(texts, x.data());
  };
  run({1, 2, 3, 39});
  EXPECT_THROW(run({}), InputError);
  EXPECT_THROW(run({1, 2, 3, 4, 5}), InputError);
  EXPECT_THROW(run({1, 40}), InputError);
  EXPECT_THROW(run({-1}), InputError);
}

// The stated bytes against the C library's, which has all but keys and values: two texts of 10
// pages and 256 rows of whole ones, keys and values of 32 tokens and 2 heads of 64 a page. Between
// them are codes of inputs that this type of head does not ask for.
TEST_F(TextPassTest, KeepsItsMemory) {
  const engine::ModelWeights weights =
      engine::LoadModel(Write(ArchName::kLlama, LinearKind::kDense, GgmlType::kQ4_1));
  const ParallelFor serial = SerialFor;
  const std::vector<std::vector<int32_t>> texts(3, RandomTokens(300, 40, 1));
  const std::vector<std::span<const int32_t>> spans(texts.begin(), texts.end());
  std::vector<float> x(900 * 256), logits(900 * 40);
  const auto used = [] {
    const struct mallinfo2 info = mallinfo2();
    return static_cast<double>(info.uordblks + info.hblkhd);
  };
  const double before = used();
  TextPass pass(weights, 300, serial);
  pass.Run(spans, x.data());
  pass.Logits(x.data(), 900, logits.data());
  const double took = used() - before;
  constexpr double kPages = 2 * 10 + 8, kPageBytes = 2.0 * 2 * 64 * 32 * 4;
  const auto stated = static_cast<double>(TextPass::BufferBytes(weights.config, 300, 300));
  EXPECT_LE(took, stated - kPages * kPageBytes);
#ifndef __SANITIZE_ADDRESS__  // Whose C library counts nothing
  EXPECT_GE(took, 0.75 * (stated - kPages * kPageBytes));
#endif
  // One more page for each text of one token.
  EXPECT_EQ(static_cast<double>(TextPass::BufferBytes(weights.config, 1, 300)),
            stated + 256 * kPageBytes);
}

// A quantized file's weights take the file, but for its keys and the names of its tensors.
TEST_F(TextPassTest, TellsWhatIsKeptOfTheWeights) {
  const auto kept = [](const std::string& path) {
    return engine::KeptBy(*engine::OpenModel(path));
  };
  const std::string quantized = Write(ArchName::kLlama, LinearKind::kDense, GgmlType::kQ4_1);
  EXPECT_EQ(kept(quantized).types, "Q4_1");
  const auto size = static_cast<int64_t>(std::filesystem::file_size(quantized));
  EXPECT_LE(kept(quantized).bytes, size);
  EXPECT_GE(kept(quantized).bytes, size - 4096);
  // Linear layers of 2 x (2 x 256 x 256 + 2 x 256 x 128 + 3 x 256 x 256) weights, two tables of 40
  // x 256, five gains of 256.
  constexpr int64_t kLinear = 2 * 6 * 65536, kTables = 2 * 40 * 256, kGains = 5 * 256;
  const auto floats = kept(Write(ArchName::kLlama, LinearKind::kDense, GgmlType::kF32));
  EXPECT_EQ(floats.types, "F32");
  EXPECT_EQ(floats.bytes, 4 * (kLinear + kTables + kGains));
  const auto ternary = kept(Write(ArchName::kLlama, LinearKind::kBitLinear, GgmlType::kTq2_0));
  EXPECT_EQ(ternary.types, "T2");
  EXPECT_EQ(ternary.bytes, kLinear / 4 + 4 * (kTables + kGains));
}

}  // namespace
}  // namespace tern::testing
