// Sequences: the same bits however they are cut, on any number of threads and on every instruction
// set; limits of the context; ids.
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "kernels/common/isa.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::Engine;
using engine::LogitsOf;
using engine::Session;

class SequenceTest : public ::testing::TestWithParam<const char*> {
 protected:
  SequenceTest() {
    const bool dense = std::string(GetParam()) == "dense";
    const TinyModel model = MakeTinyModel(
        TinyConfig(ArchName::kLlama, dense ? LinearKind::kDense : LinearKind::kBitLinear), 21);
    GgufOptions options;
    if (dense) options.linear = formats::GgmlType::kF32;
    options.activation = std::string(GetParam()) == "int8" ? "int8_token" : "none";
    WriteGguf(model, ArchName::kLlama, path_, options);
    tokens_ = RandomTokens(140, model.config.vocab_size, 22);
  }

  std::vector<float> Logits(int threads) const {
    const Engine engine(engine::LoadModel(path_), threads);
    return Session(engine).Append(tokens_, LogitsOf::kAll);
  }

  TempFolder folder_;
  std::string path_ = folder_ / "model.gguf";
  std::vector<int32_t> tokens_;
};

TEST_P(SequenceTest, AnyCutGivesTheSameBits) {
  const Engine engine(engine::LoadModel(path_), 1);
  const size_t v = static_cast<size_t>(engine.config().vocab_size);
  const std::vector<float> whole = Session(engine).Append(tokens_, LogitsOf::kAll);
  ASSERT_EQ(whole.size(), tokens_.size() * v);
  for (const size_t part : {1u, 3u, 64u, 139u}) {
    Session session(engine);
    std::vector<float> cut;
    for (size_t begin = 0; begin < tokens_.size(); begin += part) {
      const size_t size = std::min(part, tokens_.size() - begin);
      const auto logits = session.Append(std::span(tokens_).subspan(begin, size), LogitsOf::kAll);
      ASSERT_EQ(logits.size(), size * v);
      cut.insert(cut.end(), logits.begin(), logits.end());
      EXPECT_EQ(session.size(), static_cast<int64_t>(begin + size));
    }
    EXPECT_EQ(cut, whole) << "in parts of " << part;
  }
}

TEST_P(SequenceTest, TheLastLogitsAreTheLastOfAll) {
  const Engine engine(engine::LoadModel(path_), 1);
  const auto all = Session(engine).Append(tokens_, LogitsOf::kAll);
  const auto last = Session(engine).Append(tokens_, LogitsOf::kLast);
  const auto v = static_cast<int64_t>(engine.config().vocab_size);
  EXPECT_EQ(last, std::vector<float>(all.end() - v, all.end()));
}

TEST_P(SequenceTest, AnyNumberOfThreadsGivesTheSameBits) {
  const std::vector<float> one = Logits(1);
  EXPECT_EQ(Logits(2), one);
  EXPECT_EQ(Logits(3), one);
}

TEST_P(SequenceTest, EveryInstructionSetGivesTheSameBits) {
  const kernels::Isa before = kernels::ActiveIsa();
  std::vector<std::vector<float>> results;
  for (const kernels::Isa isa : kernels::AvailableIsas()) {
    kernels::SetActiveIsa(isa);
    results.push_back(Logits(1));
  }
  kernels::SetActiveIsa(before);
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

// Goal: what one sequence holds does not leak into another one of the same engine.
TEST_P(SequenceTest, SessionsAreIndependent) {
  const Engine engine(engine::LoadModel(path_), 1);
  Session first(engine), second(engine);
  const std::span<const int32_t> tokens = tokens_;
  first.Append(tokens.first(50));
  const auto alone = Session(engine).Append(tokens.subspan(50, 20), LogitsOf::kAll);
  EXPECT_EQ(second.Append(tokens.subspan(50, 20), LogitsOf::kAll), alone);
}

INSTANTIATE_TEST_SUITE_P(Rules, SequenceTest, ::testing::Values("int8", "float", "dense"),
                         [](const auto& info) { return std::string(info.param); });

class LimitsTest : public ::testing::Test {
 protected:
  LimitsTest() {
    WriteGguf(MakeTinyModel(TinyConfig(ArchName::kBitnet), 23), ArchName::kBitnet,
              folder_ / "model.gguf");
  }

  TempFolder folder_;
};

// Goal: a refused call leaves the sequence as it was, so that the caller may go on with less.
TEST_F(LimitsTest, ASequenceStopsAtItsCapacityAndStaysUsable) {
  const Engine engine(engine::LoadModel(folder_ / "model.gguf"), 1);
  const std::vector<int32_t> tokens = RandomTokens(10, engine.config().vocab_size, 24);
  const std::span<const int32_t> all = tokens;
  Session session(engine, 10);
  EXPECT_EQ(session.capacity(), 10);
  session.Append(all.first(8));
  EXPECT_THROW(session.Append(all.first(3)), InputError);
  EXPECT_EQ(session.size(), 8);
  EXPECT_EQ(session.Append(all.subspan(8)), Session(engine).Append(all));
  EXPECT_THROW(session.Append(all.first(1)), InputError);
}

TEST_F(LimitsTest, TheContextIsTheLargestCapacity) {
  const Engine engine(engine::LoadModel(folder_ / "model.gguf"), 1);
  EXPECT_EQ(Session(engine).capacity(), engine.config().context_length);
  EXPECT_EQ(Session(engine, 1'000'000'000'000).capacity(), engine.config().context_length);
}

TEST_F(LimitsTest, IdsOutsideOfTheVocabularyAreRefused) {
  const Engine engine(engine::LoadModel(folder_ / "model.gguf"), 1);
  const auto vocab_size = static_cast<int32_t>(engine.config().vocab_size);
  for (const int32_t bad : {-1, vocab_size, INT32_MAX, INT32_MIN}) {
    Session session(engine);
    EXPECT_THROW(session.Append(std::vector<int32_t>{0, bad}), InputError) << bad;
    EXPECT_EQ(session.size(), 0);
  }
  EXPECT_NO_THROW(Session(engine).Append(std::vector<int32_t>{0, vocab_size - 1}));
}

TEST_F(LimitsTest, NoTokensAreRefused) {
  const Engine engine(engine::LoadModel(folder_ / "model.gguf"), 1);
  EXPECT_THROW(Session(engine).Append({}), InputError);
}

// Goal: weights that do not fit their config are caught before a kernel reads beyond them.
TEST_F(LimitsTest, WeightsOfOtherSizesAreABug) {
  using engine::ModelWeights;
  const auto refused = [&](const std::function<void(ModelWeights&)>& spoil) {
    ModelWeights weights = engine::LoadModel(folder_ / "model.gguf");
    spoil(weights);
    EXPECT_THROW(Engine(std::move(weights), 1), BugError);
  };
  refused([](ModelWeights& w) { w.layers.pop_back(); });
  refused([](ModelWeights& w) { w.layers[1].input_norm.pop_back(); });
  refused([](ModelWeights& w) { std::get<engine::TernaryMatrix>(w.layers[0].v).t2.pop_back(); });
  refused([](ModelWeights& w) { std::get<engine::DenseMatrix>(w.embedding).values.pop_back(); });
  refused([](ModelWeights& w) { w.config.tied_head = false; });
}

}  // namespace
}  // namespace tern::testing
