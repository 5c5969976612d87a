// A model that is read layer by layer gives the very bits of one in memory.
#include "engine/streamed_model.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/session.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::StreamedModel;

class StreamedModelTest : public ::testing::Test {
 protected:
  std::vector<float> InMemory(const std::string& path) {
    const engine::Engine engine(engine::LoadModel(path), 2);
    return engine::Session(engine).Append(tokens_, engine::LogitsOf::kAll);
  }
  // The logits in pieces of `rows` tokens.
  std::vector<float> Streamed(const std::string& path, int64_t rows) {
    StreamedModel model(path, tokens_, 1);
    std::vector<float> all;
    for (int64_t begin = 0; begin < model.num_tokens(); begin += rows) {
      const auto some = model.Logits(begin, std::min(begin + rows, model.num_tokens()));
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }

  TempFolder folder_;
  std::vector<int32_t> tokens_ = RandomTokens(280, 40, 7);  // More than one pass has rows
};

TEST_F(StreamedModelTest, HasTheBitsOfAModelInMemory) {
  for (const ArchName arch :
       {ArchName::kLlama, ArchName::kQwen2, ArchName::kQwen3, ArchName::kBitnet158}) {
    for (const LinearKind linear : {LinearKind::kDense, LinearKind::kBitLinear}) {
      if (arch == ArchName::kBitnet158 && linear == LinearKind::kDense) continue;
      const std::string path = folder_ / "model.gguf";
      GgufOptions options;
      if (linear == LinearKind::kDense) options.linear = formats::GgmlType::kF16;
      WriteGguf(MakeTinyModel(TinyConfig(arch, linear), 3), arch, path, options);
      const std::vector<float> want = InMemory(path);
      EXPECT_EQ(Streamed(path, 300), want) << static_cast<int>(arch);
      EXPECT_EQ(Streamed(path, 33), want) << static_cast<int>(arch);
    }
  }
}

TEST_F(StreamedModelTest, ReadsFolders) {
  WriteHfFolder(MakeTinyModel(TinyConfig(ArchName::kLlama, LinearKind::kDense), 3),
                folder_ / "model");
  EXPECT_EQ(Streamed(folder_ / "model", 64), InMemory(folder_ / "model"));
}

TEST_F(StreamedModelTest, SlidingAttention) {
  HfOptions options;
  options.change_config = [](nlohmann::json& config) {
    config.update({{"model_type", "mistral"}, {"sliding_window", 100}});
  };
  const TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama, LinearKind::kDense), 3);
  WriteHfFolder(model, folder_ / "whole");
  WriteHfFolder(model, folder_ / "slides", options);
  const std::vector<float> want = InMemory(folder_ / "slides");
  EXPECT_EQ(Streamed(folder_ / "slides", 64), want);
  EXPECT_NE(InMemory(folder_ / "whole"), want);
}

TEST_F(StreamedModelTest, RefusesTokensAndTensorsThatHaveNoPlace) {
  const TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama), 3);
  const std::string path = folder_ / "model.gguf";
  WriteGguf(model, ArchName::kLlama, path);
  EXPECT_THROW(StreamedModel(path, {}, 1), InputError);
  EXPECT_THROW(StreamedModel(path, std::vector<int32_t>{0, 40}, 1), InputError);
  EXPECT_THROW(StreamedModel(path, std::vector<int32_t>(301, 1), 1), InputError);
  GgufOptions more;
  more.add = [](formats::GgufWriter& writer) {
    writer.AddTensor("blk.0.surprise.weight", formats::GgmlType::kF32, {1, 32},
                     [](int64_t, uint8_t* out) { std::fill_n(out, 128, uint8_t{0}); });
  };
  WriteGguf(model, ArchName::kLlama, path, more);
  EXPECT_THROW(StreamedModel(path, tokens_, 1), FormatError);
}

}  // namespace
}  // namespace tern::testing
