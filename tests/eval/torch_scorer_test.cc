// Both routes of an evaluation agree: libtorch's scores are those of its own logits, and the
// engine's scores and texts of the same weights.
#include "eval/torch_scorer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "engine/engine.h"
#include "tasks/engine_scorer.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_vocabulary.h"
#include "tests/testing/temp_folder.h"
#include "transfer/import.h"

namespace tern::testing {
namespace {

using Scores = std::vector<std::vector<tasks::TokenScore>>;

// A dense model with a tokenizer of bytes, in both runtimes.
class TorchScorerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const text::PieceTable table = ByteVocabulary();
    ModelConfig config = TinyConfig(ArchName::kLlama, LinearKind::kDense);
    config.vocab_size = static_cast<int64_t>(table.pieces.size());
    GgufOptions file;
    file.tokenizer = &table;
    file.linear = formats::GgmlType::kF32;
    file.activation.reset();
    path_ = folder_ / "model.gguf";
    WriteGguf(MakeTinyModel(config, 52), ArchName::kLlama, path_, file);
    model_.emplace(transfer::OpenDecoder(path_));
    scorer_.emplace(model_->decoder, &*model_->tokenizer, model_->stop_tokens, path_, 0);
  }

  Scores ScoreIn(tasks::ModelScorer& scorer, const std::vector<tasks::ScoreRequest>& requests) {
    Scores all(requests.size());
    size_t calls = 0;
    scorer.Score(requests, [&](size_t r, std::vector<tasks::TokenScore> scores) {
      all[r] = std::move(scores);
      ++calls;
    });
    EXPECT_EQ(calls, requests.size());
    return all;
  }

  TempFolder folder_;
  std::string path_;
  std::optional<transfer::OpenedModel> model_;
  std::optional<eval::TorchScorer> scorer_;
};

std::vector<tasks::ScoreRequest> Requests() {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 40; ++i) tokens.push_back((i * 37 + 5) % 265);
  return {{tokens, 1}, {tokens, 31}, {tokens, 40}, {{3, 9}, 1}};
}

TEST_F(TorchScorerTest, ScoresAreTheLogitsLogarithms) {
  const at::NoGradGuard no_grad;
  const auto requests = Requests();
  const Scores scores = ScoreIn(*scorer_, requests);
  const std::vector<int32_t>& tokens = requests[0].tokens;
  model::DecoderInput input;
  input.tokens_BT = at::empty({1, 39}, at::kLong);
  for (int64_t i = 0; i < 39; ++i) input.tokens_BT[0][i] = tokens[static_cast<size_t>(i)];
  const at::Tensor logits = model_->decoder.Logits(input, {});
  const at::Tensor logprobs = at::log_softmax(logits.to(at::kDouble), -1);
  const auto stream = scorer_->Stream(std::span(tokens).first(39));
  const std::vector<float> first = stream->Next(7), rest = stream->Next(32);
  for (int64_t i = 0; i < 39; ++i) {
    const auto& score = scores[0][static_cast<size_t>(i)];
    const int32_t target = tokens[static_cast<size_t>(i + 1)];
    // fp32's sum of 265 exponentials: 265 half ulps of 1 at most, 1.6e-5.
    EXPECT_NEAR(score.logprob, logprobs[i][target].item<double>(), 2e-5);
    EXPECT_EQ(score.greedy, logits[i].argmax().item<int64_t>() == target);
    const float streamed =
        i < 7 ? first[static_cast<size_t>(i * 265)] : rest[static_cast<size_t>((i - 7) * 265)];
    // Products of another row count may sum in another order.
    EXPECT_NEAR(streamed, logits[i][0].item<float>(), 1e-4);
  }
  ASSERT_EQ(scores[1].size(), 9u);
  EXPECT_NEAR(scores[1][0].logprob, scores[0][30].logprob, 1e-5);
  EXPECT_TRUE(scores[2].empty());
  EXPECT_EQ(scorer_->tokens_run(), 39 + 39 + 1 + 39);
}

TEST_F(TorchScorerTest, AgreesWithTheEngine) {
  const engine::Engine engine(engine::LoadModel(path_), 1);
  tasks::EngineScorer engine_scorer(engine, {});
  const Scores ours = ScoreIn(*scorer_, Requests()), theirs = ScoreIn(engine_scorer, Requests());
  for (size_t r = 0; r < ours.size(); ++r) {
    ASSERT_EQ(ours[r].size(), theirs[r].size());
    for (size_t i = 0; i < ours[r].size(); ++i)
      EXPECT_NEAR(ours[r][i].logprob, theirs[r][i].logprob, 1e-4);
  }
  const std::vector<tasks::GenerateRequest> prompts = {
      {{5, 80, 99}, 12, {}}, {{70}, 5, {"q"}}, {{200, 4, 9, 9, 60}, 1000, {}}};
  std::vector<std::string> texts(3), engine_texts(3);
  scorer_->Generate(prompts, [&](size_t r, std::string text) { texts[r] = text; });
  engine_scorer.Generate(prompts, [&](size_t r, std::string text) { engine_texts[r] = text; });
  EXPECT_EQ(texts, engine_texts);
}

TEST_F(TorchScorerTest, RefusesWhatTheModelCannotTake) {
  const auto ignore = [](size_t, const auto&) {};
  const std::vector<tasks::ScoreRequest> outside = {{{3, 265}, 1}}, inner = {{{-1, 3}, 1}};
  EXPECT_THROW(scorer_->Score(outside, ignore), InputError);
  EXPECT_THROW(scorer_->Score(inner, ignore), InputError);
  const std::vector<tasks::ScoreRequest> longer = {
      {std::vector<int32_t>(static_cast<size_t>(scorer_->max_length() + 2), 1), 1}};
  EXPECT_THROW(scorer_->Score(longer, ignore), InputError);
  EXPECT_THROW(eval::TorchScorer(model_->decoder, nullptr, {}, "m", 1 << 20), UsageError);
  eval::TorchScorer mute(model_->decoder, nullptr, {}, "m", 0);
  const std::vector<tasks::GenerateRequest> prompt = {{{5}, 3, {}}};
  EXPECT_THROW(mute.Generate(prompt, ignore), InputError);
}

}  // namespace
}  // namespace tern::testing
