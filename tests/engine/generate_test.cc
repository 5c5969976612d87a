// Generation: what is streamed is whole UTF-8 and adds up to the result, the end of text and the
// limits are kept, the same seed writes the same text.
#include "engine/generate.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"
#include "engine/model_source.h"
#include "engine/stop_tokens.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_vocabulary.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::EndReason;
using engine::Engine;
using engine::Generate;
using engine::GenerateOptions;
using engine::GenerateResult;

class GenerateTest : public ::testing::Test {
 protected:
  // The vocabulary may be smaller than the model: its last rows are padding.
  Engine& Load(int64_t padding = 0, bool with_tokenizer = true) {
    text::PieceTable table = ByteVocabulary();
    for (const std::string& token : turn_ends_) {
      table.pieces.push_back(token);
      table.types.push_back(text::PieceType::kControl);
      table.scores.push_back(0.0f);
    }
    ModelConfig config = TinyConfig(ArchName::kLlama);
    config.vocab_size = static_cast<int64_t>(table.pieces.size()) + padding;
    TinyModel model = MakeTinyModel(config, 51);
    if (spoil_) spoil_(model);
    GgufOptions options;
    if (with_tokenizer) options.tokenizer = &table;
    options.add = add_keys_;
    WriteGguf(model, ArchName::kLlama, folder_ / "model.gguf", options);
    return engine_.emplace(engine::LoadModel(folder_ / "model.gguf"), 1);
  }

  // Makes the head prefer `id`, whatever came before: its row is the others' upper bound.
  // `second` comes next, with half of its logit.
  void Prefer(int64_t id, int64_t second = -1) {
    spoil_ = [id, second](TinyModel& model) {
      const auto d = static_cast<size_t>(model.config.hidden_size);
      std::vector<float>& gain = model.floats.at("model.norm.weight");
      gain.assign(d, 0.0f);
      gain[0] = 1.0f;  // Only the first of the hidden numbers counts ...
      std::vector<float>& head = model.floats.at("lm_head.weight");
      for (size_t row = 0; row < head.size() / d; ++row) head[row * d] = 0.0f;
      head[static_cast<size_t>(id) * d] = 1.0f;
      if (second >= 0) head[static_cast<size_t>(second) * d] = 0.5f;
      std::vector<float>& table = model.floats.at("model.embed_tokens.weight");
      for (size_t row = 0; row < table.size() / d; ++row) table[row * d] = 1000.0f;  // ... is > 0
    };
  }

  TempFolder folder_;
  std::function<void(TinyModel&)> spoil_;
  std::vector<std::string> turn_ends_;  // Control pieces behind the vocabulary
  std::function<void(formats::GgufWriter&)> add_keys_;
  std::optional<Engine> engine_;
};

GenerateOptions Hot(int64_t max_tokens, uint64_t seed) {
  GenerateOptions options;
  options.max_tokens = max_tokens;
  options.sampling.temperature = 2.0;
  options.sampling.seed = seed;
  return options;
}

TEST_F(GenerateTest, StreamsWholeUtf8ThatAddsUpToTheText) {
  const Engine& engine = Load();
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    std::string streamed;
    const auto stream = [&](std::string_view piece) {
      EXPECT_FALSE(piece.empty());
      EXPECT_EQ(FirstInvalidUtf8(piece), std::nullopt);
      streamed += piece;
    };
    const GenerateResult result = Generate(engine, "To be", Hot(60, seed), stream);
    EXPECT_EQ(streamed, result.text);
    EXPECT_LE(result.new_tokens, 60);
    EXPECT_EQ(result.end == EndReason::kEndOfText, result.new_tokens < 60);
    EXPECT_GT(result.prompt_tokens, 1);
  }
}

TEST_F(GenerateTest, TheSeedDecides) {
  const Engine& engine = Load();
  const auto write = [&](uint64_t seed) { return Generate(engine, "a", Hot(40, seed), {}).text; };
  EXPECT_EQ(write(3), write(3));
  EXPECT_NE(write(3), write(4));
}

TEST_F(GenerateTest, EndOfTextEndsItAndIsNoText) {
  Prefer(ByteVocabulary().eos_id);
  const GenerateResult result = Generate(Load(), "a", {}, {});
  EXPECT_EQ(result.end, EndReason::kEndOfText);
  EXPECT_EQ(result.new_tokens, 0);
  EXPECT_EQ(result.text, "");
}

// Chat models end a turn with another token than the text.
TEST_F(GenerateTest, TokensThatEndATurnEndTheText) {
  const auto first = static_cast<int64_t>(ByteVocabulary().pieces.size());
  turn_ends_ = {"<|im_end|>", "<my-end>", "<other>"};
  add_keys_ = [&](formats::GgufWriter& writer) {
    writer.AddU32("tokenizer.ggml.eot_token_id", static_cast<uint32_t>(first + 1));
  };
  GenerateOptions options;
  options.max_tokens = 2;
  for (int64_t id = first; id < first + 3; ++id) {
    Prefer(id);
    const GenerateResult result = Generate(Load(), "a", options, {});
    const bool ends = id < first + 2;  // By name, by key, not at all
    EXPECT_EQ(result.end, ends ? EndReason::kEndOfText : EndReason::kTokenLimit) << id;
    EXPECT_EQ(result.new_tokens, ends ? 0 : 2) << id;
  }
  // Kept when the file is imported.
  const auto source = engine::OpenModel(folder_ / "model.gguf");
  const std::vector<int32_t> want = {ByteVocabulary().eos_id, static_cast<int32_t>(first),
                                     static_cast<int32_t>(first + 1)};
  EXPECT_EQ(engine::ReadHfStopTokens(source->Files(), "here", *source->Tokenizer()), want);
}

TEST(StopTokensTest, GenerationConfigComesBeforeConfig) {
  const text::Tokenizer tokenizer = text::Tokenizer::FromPieces(ByteVocabulary());
  const auto read = [&](const engine::ModelFiles& files) {
    return engine::ReadHfStopTokens(files, "here", tokenizer);
  };
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(read({}), Ids{2});
  EXPECT_EQ(read({{"config.json", R"({"eos_token_id": 7})"}}), (Ids{2, 7}));
  EXPECT_EQ(read({{"config.json", R"({"eos_token_id": 7})"},
                  {"generation_config.json", R"({"eos_token_id": [9, 2, 8]})"}}),
            (Ids{2, 8, 9}));
  EXPECT_EQ(read({{"config.json", R"({"eos_token_id": [7]})"},
                  {"generation_config.json", R"({"eos_token_id": null})"}}),
            (Ids{2, 7}));
  EXPECT_EQ(read({{"config.json", R"({"eos_token_id": 128001})"}}), Ids{2}) << "no such token";
  for (const char* bad : {R"({"eos_token_id": "x"})", R"({"eos_token_id": [1, null]})", "{"})
    EXPECT_THROW(read({{"generation_config.json", bad}}), FormatError) << bad;
}

TEST_F(GenerateTest, StopsAtTheLimit) {
  Prefer(ByteId('x'));
  GenerateOptions options;
  options.max_tokens = 5;
  const GenerateResult result = Generate(Load(), "a", options, {});
  EXPECT_EQ(result.end, EndReason::kTokenLimit);
  EXPECT_EQ(result.new_tokens, 5);
  EXPECT_EQ(result.text, "xxxxx");
}

TEST_F(GenerateTest, StopsAtTheEndOfTheContext) {
  Prefer(ByteId('x'));
  GenerateOptions options;
  options.max_tokens = std::numeric_limits<int64_t>::max();
  const Engine& engine = Load();
  const GenerateResult result = Generate(engine, "a", options, {});
  EXPECT_EQ(result.end, EndReason::kContextFull);
  // The last token needs no place of its own: it is chosen, and not run.
  EXPECT_EQ(result.prompt_tokens + result.new_tokens, engine.config().context_length + 1);
}

// Goal: half a character at the end does not get out as broken bytes.
TEST_F(GenerateTest, AnUnfinishedCharacterBecomesAReplacement) {
  Prefer(ByteId('\xE2'));
  GenerateOptions options;
  options.max_tokens = 1;
  EXPECT_EQ(Generate(Load(), "a", options, {}).text, "\uFFFD");
}

TEST_F(GenerateTest, RowsBeyondTheVocabularyAreNeverChosen) {
  Prefer(static_cast<int64_t>(ByteVocabulary().pieces.size()) + 2);
  GenerateOptions options;
  options.max_tokens = 3;
  EXPECT_NO_THROW(Generate(Load(/*padding=*/5), "a", options, {}));
}

// Goal: a prompt of the whole context still gets its next token.
TEST_F(GenerateTest, APromptThatFillsTheContextGetsOneToken) {
  Prefer(ByteId('x'));
  const Engine& engine = Load();
  const auto length = static_cast<size_t>(engine.config().context_length) - 1;  // And BOS
  const GenerateResult result = Generate(engine, std::string(length, 'z'), {}, {});
  EXPECT_EQ(result.text, "x");
  EXPECT_EQ(result.end, EndReason::kContextFull);
  EXPECT_THROW(Generate(engine, std::string(length + 1, 'z'), {}, {}), InputError);
}

// The vocabulary's letters are one byte each, so every stop string spans tokens.
TEST_F(GenerateTest, AStopStringEndsTheTextAndIsNotInIt) {
  const Engine& engine = Load();
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const std::string text = Generate(engine, "To be", Hot(40, seed), {}).text;
    for (size_t at = 0; at + 5 < text.size(); at = CharacterBorder(text, at + 9)) {
      GenerateOptions options = Hot(40, seed);
      const std::string stop = text.substr(at, CharacterBorder(text, at + 5) - at);
      if (stop.empty()) continue;
      options.stop = {"never comes", stop};
      std::string streamed;
      const GenerateResult result = Generate(engine, "To be", options, [&](std::string_view piece) {
        EXPECT_EQ(FirstInvalidUtf8(piece), std::nullopt);
        streamed += piece;
      });
      EXPECT_EQ(result.end, EndReason::kStopString);
      EXPECT_EQ(result.text, text.substr(0, text.find(stop)));
      EXPECT_EQ(streamed, result.text);
    }
  }
}

// Goal: what was held back comes when no stop string does.
TEST_F(GenerateTest, TheBeginningOfAStopStringIsText) {
  Prefer(ByteId('k'));
  GenerateOptions options;
  options.max_tokens = 3;
  options.stop = {"kkkkk", "y"};
  const GenerateResult result = Generate(Load(), "a", options, {});
  EXPECT_EQ(result.text, "kkk");
  EXPECT_EQ(result.end, EndReason::kTokenLimit);
  options.stop = {""};
  EXPECT_THROW(Generate(*engine_, "a", options, {}), UsageError);
}

// Goal: the penalty sees the prompt and what is written.
TEST_F(GenerateTest, ThePenaltyCountsPromptAndText) {
  Prefer(ByteId('x'), ByteId('y'));
  GenerateOptions options;
  options.max_tokens = 4;
  options.sampling.repetition_penalty = 4;
  options.sampling.penalty_tokens = 1;
  const Engine& engine = Load();
  EXPECT_EQ(Generate(engine, "a", options, {}).text, "xyxy");
  EXPECT_EQ(Generate(engine, "ax", options, {}).text, "yxyx");
  options.sampling.penalty_tokens = -1;
  EXPECT_EQ(Generate(engine, "xa", options, {}).text, "yxxx");  // Both penalized from then on
}

TEST_F(GenerateTest, NoNewTokensIsJustThePrompt) {
  GenerateOptions options;
  options.max_tokens = 0;
  const GenerateResult result = Generate(Load(), "abc", options, {});
  EXPECT_EQ(result.new_tokens, 0);
  EXPECT_EQ(result.text, "");
  options.max_tokens = -1;
  EXPECT_THROW(Generate(*engine_, "abc", options, {}), UsageError);
}

TEST_F(GenerateTest, PromptsThatCannotBeRunAreRefused) {
  const Engine& engine = Load();
  EXPECT_THROW(Generate(engine, "\xFF", {}, {}), InputError);
  try {
    Generate(engine, std::string(1000, 'z'), {}, {});
    ADD_FAILURE();
  } catch (const InputError& error) {  // 1 BOS; a context of 300
    EXPECT_NE(std::string(error.what()).find("1001 tokens"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("by 701 tokens"), std::string::npos) << error.what();
  }
  EXPECT_THROW(Generate(Load(0, /*with_tokenizer=*/false), "a", {}, {}), InputError);
}

}  // namespace
}  // namespace tern::testing
