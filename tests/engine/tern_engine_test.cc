// The library's one header: it gives what the parts behind it give.
#include "engine/tern_engine.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_vocabulary.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::LanguageModel;

class LanguageModelTest : public ::testing::Test {
 protected:
  LanguageModelTest() {
    const text::PieceTable table = ByteVocabulary();
    ModelConfig config = TinyConfig(ArchName::kLlama);
    config.vocab_size = static_cast<int64_t>(table.pieces.size());
    const TinyModel model = MakeTinyModel(config, 111);
    GgufOptions options;
    options.tokenizer = &table;
    WriteGguf(model, ArchName::kLlama, path_, options);
    options.tokenizer = nullptr;
    WriteGguf(model, ArchName::kLlama, bare_, options);
  }

  TempFolder folder_;
  std::string path_ = folder_ / "model.gguf", bare_ = folder_ / "bare.gguf";
};

TEST_F(LanguageModelTest, GivesWhatItsPartsGive) {
  const LanguageModel model(path_, 1);
  const engine::Engine parts(engine::LoadModel(path_), 1);
  EXPECT_EQ(model.vocab_size(), parts.config().vocab_size);
  EXPECT_EQ(model.context_length(), 300);
  EXPECT_TRUE(model.has_tokenizer());
  const std::vector<int32_t> ids = model.Tokenize("To be");
  EXPECT_EQ(ids.front(), parts.weights().tokenizer->bos_id());
  EXPECT_EQ(model.Detokenize(ids), "To be");
  EXPECT_EQ(model.Logits(ids), engine::Session(parts).Append(ids, engine::LogitsOf::kAll));
  std::string streamed;
  const auto result = model.Generate("To be", {}, [&](std::string_view s) { streamed += s; });
  EXPECT_EQ(streamed, result.text);
  EXPECT_EQ(result.text, engine::Generate(parts, "To be", {}, {}).text);
}

TEST_F(LanguageModelTest, ActivationsAreTheCallersChoice) {
  ModelConfig config = TinyConfig(ArchName::kLlama);
  GgufOptions options;
  options.table = formats::GgmlType::kQ8_0;
  WriteGguf(MakeTinyModel(config, 112), ArchName::kLlama, bare_, options);
  const std::vector<int32_t> ids{1, 5, 7};
  const auto logits = [&](engine::CodeActivations activations) {
    engine::ModelWeights weights = engine::LoadModel(bare_);
    engine::SetActivations(activations, &weights);
    const engine::Engine parts(std::move(weights), 1);
    const std::vector<float> of_parts = engine::Session(parts).Append(ids, engine::LogitsOf::kAll);
    EXPECT_EQ(LanguageModel(bare_, 1, activations).Logits(ids), of_parts);
    return of_parts;
  };
  using enum engine::CodeActivations;
  EXPECT_EQ(LanguageModel(bare_, 1).Logits(ids), logits(kInt16));
  EXPECT_NE(logits(kInt8), logits(kInt16));
  EXPECT_EQ(logits(kFloat), logits(kInt16));  // Q8_0 meets fp32 unless 8 bits are asked for
}

TEST_F(LanguageModelTest, ErrorsAreTyped) {
  EXPECT_THROW(LanguageModel(folder_ / "nowhere.gguf"), InputError);
  LanguageModel model(bare_, 1);
  EXPECT_FALSE(model.has_tokenizer());
  EXPECT_THROW(model.Tokenize("a"), InputError);
  EXPECT_THROW(model.Generate("a"), InputError);
  EXPECT_THROW(model.Logits({}), InputError);
  EXPECT_THROW(model.Logits(std::vector<int32_t>(301)), InputError);
  LanguageModel moved = std::move(model);
  EXPECT_EQ(moved.Logits(std::vector<int32_t>{1}).size(), static_cast<size_t>(moved.vocab_size()));
}

}  // namespace
}  // namespace tern::testing
