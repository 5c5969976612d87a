// Trainings that several ranks share: whatever their number and what is spread over them, the same
// samples, the same mathematics, and checkpoints that any other number of ranks goes on from.
#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "data/loader.h"
#include "eval/perplexity.h"
#include "tests/testing/file_size_limit.h"
#include "tests/train/ranks_run.h"
#include "train/step.h"
#include "train/train_state.h"

namespace tern::train {
namespace {

using recipe::Sharding;

struct Case {
  int ranks;
  Sharding shard;
  int64_t shard_size = 0;
};

class RanksLossTest : public LossTest {
 protected:
  void Check(const std::vector<Case>& cases) {
    std::vector<Ranks> all;
    for (const auto& [ranks, shard, size] : cases) {
      all.push_back({StrCat("ranks", ranks, "_", static_cast<int>(shard), "_", size), ranks,
                     RanksRecipe(shard, size)});
    }
    recipe::TrainStage stage = RanksStage(50);
    // Half the rate of the other tests: with theirs, on processors that round products as AVX2
    // does, two codes that fall otherwise have grown to a fiftieth of a nat after 50 steps.
    stage.schedule.peak_lr = 7.5e-4;
    stage.schedule.second_lr = 5e-4;
    CheckLosses(RanksRecipe(Sharding::kNone), stage, all);
  }
};

TEST_F(RanksLossTest, FiftyStepsAgree) {
  Check({{2, Sharding::kNone}, {3, Sharding::kZero3}, {4, Sharding::kZero3, /*shard_size=*/2}});
}

class SlowRanksLossTest : public RanksLossTest {};

TEST_F(SlowRanksLossTest, FiftyStepsAgreeForAnyRanksAndSharding) {
  Check({{3, Sharding::kNone},
         {4, Sharding::kNone},
         {2, Sharding::kZero1},
         {4, Sharding::kZero1},
         {2, Sharding::kZero2},
         {3, Sharding::kZero2},
         {2, Sharding::kZero3},
         {4, Sharding::kZero3},
         {4, Sharding::kZero1, /*shard_size=*/2},
         {4, Sharding::kZero2, /*shard_size=*/2},
         {6, Sharding::kZero3, /*shard_size=*/3}});
}

// With gradients in BF16 on their way a sum has terms of 8 significant bits: relative 2^-9 each.
TEST_F(RanksTest, BF16ReductionChangesGradientsByItsRoundingOnly) {
  const recipe::TrainStage stage = RanksStage(1);
  Train(RanksRecipe(Sharding::kNone), stage, 1, "one");
  recipe::Recipe recipe = RanksRecipe(Sharding::kZero3);
  recipe.parallel.reduce = recipe::ReduceType::kBf16;
  Train(recipe, stage, 2, "bf16");
  const double want = Series("one", "grad_norm").at(0), got = Series("bf16", "grad_norm").at(0);
  EXPECT_NEAR(got, want, want / 512);
  EXPECT_NE(got, want);
}

// One checkpoint loaded by 1, 2 and 3 ranks: the hidden states have the same bits, whether a rank
// holds the latents or gathers their codes. (One thread; the same rows in each forward.)
TEST_F(RanksTest, ForwardOfSpreadMatricesHasTheBitsOfOneRank) {
  const recipe::TrainStage stage = RanksStage(4);
  Train(RanksRecipe(Sharding::kZero3), stage, 1, "one");
  const auto found = checkpoint::FindNewestValid(folder_ / "one/train");
  const model::DecoderInput input{at::arange(64).view({4, 16}), {}, {}};
  const auto hidden = [&](parallel::Group* group, int64_t shard_size) {
    const at::NoGradGuard no_grad;
    TrainState state(RanksRecipe(Sharding::kZero3, shard_size), stage, group);
    LoadTrainState(checkpoint::CheckpointReader(*found.path), &state);
    state.sharding.PrepareForward();
    model::ForwardOptions options;
    options.source = state.sharding.source();
    return state.decoder.Hidden(input, options);
  };
  const at::Tensor want = hidden(nullptr, 0);
  for (const auto& [ranks, size] : {std::pair{2, 0}, std::pair{3, 0}, std::pair{4, 2}}) {
    parallel::RunRankThreads(ranks, [&](parallel::Group& group) {
      EXPECT_TRUE(at::equal(hidden(&group, size), want)) << group.rank() << " of " << ranks;
    });
  }
}

// Loading and saving without a step in between is the identity, whoever wrote and whoever reads.
TEST_F(RanksTest, CheckpointsAreReadByAnyNumberOfRanks) {
  recipe::TrainStage stage = RanksStage(4);
  stage.checkpoint_every = 100;
  Train(RanksRecipe(Sharding::kNone), stage, 1, "run");
  auto bits = Bits("run");
  for (const Case& turn :
       {Case{3, Sharding::kZero3}, Case{4, Sharding::kZero3, 2}, Case{2, Sharding::kZero1},
        Case{6, Sharding::kZero1, 3}, Case{2, Sharding::kNone}, Case{1, Sharding::kNone}}) {
    const recipe::Recipe recipe = RanksRecipe(turn.shard, turn.shard_size);
    const auto found = checkpoint::FindNewestValid(folder_ / "run/train");
    const auto load_and_save = [&](parallel::Group* group) {
      TrainState state(recipe, stage, group);
      LoadTrainState(checkpoint::CheckpointReader(*found.path), &state);
      state.step += 1;
      SaveOptions options;
      options.folder = folder_ / "run/train";
      options.group = group;
      Saving saving(state, options);
      saving.Write();
      saving.Finish();
    };
    if (turn.ranks == 1) {
      load_and_save(nullptr);
    } else {
      parallel::RunRankThreads(turn.ranks, [&](parallel::Group& group) { load_and_save(&group); });
    }
    EXPECT_TRUE(Bits("run") == bits) << turn.ranks << " ranks";
  }
}

// Written while training goes on: every checkpoint has the bits of one that training waited for.
TEST_F(RanksTest, AsynchronousCheckpointsHoldTheSameBits) {
  for (const int ranks : {1, 3}) {
    recipe::TrainStage stage = RanksStage(7);
    stage.checkpoint_every = 2;
    stage.keep_last = 10;
    const recipe::Recipe recipe = RanksRecipe(Sharding::kZero3);
    const std::string waited = StrCat("waited", ranks), not_waited = StrCat("not_waited", ranks);
    Train(recipe, stage, ranks, waited);
    stage.checkpoint_async = true;
    Train(recipe, stage, ranks, not_waited);
    std::vector<int64_t> saved;
    std::istringstream journal(ReadFile(folder_ / (not_waited + "/journal.jsonl")));
    for (std::string line; std::getline(journal, line);) {
      const nlohmann::json event = nlohmann::json::parse(line);
      if (event["event"] == "saved") saved.push_back(event["step"].get<int64_t>());
    }
    EXPECT_EQ(saved, (std::vector<int64_t>{2, 4, 6, 7}));
    for (const int64_t step : saved) {
      EXPECT_TRUE(BitsAt(not_waited, step) == BitsAt(waited, step)) << ranks << " ranks, " << step;
    }
  }
}

// The error of a write that nobody waited for stops the training, and nothing of it stays.
TEST_F(RanksTest, AFullDiskBehindTheTrainingIsAnError) {
  recipe::TrainStage stage = RanksStage(6);
  stage.checkpoint_every = 2;
  stage.checkpoint_async = true;
  {
    const tern::testing::FileSizeLimit full(1 << 16);
    EXPECT_THROW(Train(RanksRecipe(Sharding::kNone), stage, 1, "full"), ResourceError);
  }
  EXPECT_FALSE(checkpoint::FindNewestValid(folder_ / "full/train").path.has_value());
  Train(RanksRecipe(Sharding::kNone), stage, 1, "full");
}

// The ranks change between the starts of one run; the samples do not.
TEST_F(RanksTest, RunGoesOnWithOtherRanks) {
  const recipe::TrainStage whole = RanksStage(12);
  Train(RanksRecipe(Sharding::kNone), whole, 1, "one");
  recipe::TrainStage part = whole;
  const Case turns[] = {{2, Sharding::kZero3},
                        {3, Sharding::kNone},
                        {4, Sharding::kZero3, /*shard_size=*/2},
                        {4, Sharding::kZero2}};
  for (int64_t i = 0; i < 4; ++i) {
    part.steps = 3 * (i + 1);
    Train(RanksRecipe(turns[i].shard, turns[i].shard_size), part, turns[i].ranks, "turns");
  }
  EXPECT_EQ(Hashes("turns"), Hashes("one"));
  EXPECT_EQ(Series("turns", "step"), Series("one", "step"));
}

// Same recipe, same number of ranks: the same bits, also when the run was cut in two.
TEST_F(RanksTest, SameRanksMeanTheSameBitsAcrossAResume) {
  for (const auto& [ranks, shard, size] :
       {Case{3, Sharding::kNone}, Case{3, Sharding::kZero3}, Case{4, Sharding::kZero3, 2}}) {
    const std::string name = StrCat("bits", ranks, "_", static_cast<int>(shard));
    recipe::TrainStage part = RanksStage(6);
    part.schedule.kind = recipe::ScheduleKind::kConstant;  // What else depends on the last step
    part.optimizer.weight_decay_until = 1;
    Train(RanksRecipe(shard, size), part, ranks, name + "w");
    part.steps = 3;
    Train(RanksRecipe(shard, size), part, ranks, name + "p");
    part.steps = 6;
    Train(RanksRecipe(shard, size), part, ranks, name + "p");
    EXPECT_TRUE(Bits(name + "p") == Bits(name + "w")) << name;
  }
}

TEST_F(RanksTest, EvaluationHasTheBitsOfOneRank) {
  const recipe::Recipe recipe = RanksRecipe(Sharding::kNone);
  model::Decoder decoder(recipe.model);
  decoder.Initialize(7);
  eval::PerplexityOptions options;
  options.split = data::Split::kTrain;
  options.sequence_length = 16;
  options.batch = 4;  // 12 passes of the 47 windows, the last of them short
  const eval::PerplexityResult want = eval::Perplexity(decoder, tokens_, options);
  for (const int ranks : {2, 3, 5}) {
    parallel::RunRankThreads(ranks, [&](parallel::Group& group) {
      eval::PerplexityOptions mine = options;
      mine.group = &group;
      const eval::PerplexityResult got = eval::Perplexity(decoder, tokens_, mine);
      EXPECT_EQ(got.loss, want.loss) << ranks;
      EXPECT_EQ(got.tokens, want.tokens);
    });
  }
}

// Health, clipping and skipped steps need numbers of all ranks.
TEST_F(RanksTest, HealthIsThatOfTheWholeModel) {
  recipe::TrainStage stage = RanksStage(2);
  stage.health_every = 1;
  Train(RanksRecipe(Sharding::kNone), stage, 1, "one");
  const nlohmann::json want = ReadMetrics(folder_ / "one/metrics.jsonl").at(0).values.at("health");
  for (const Sharding shard : {Sharding::kNone, Sharding::kZero2, Sharding::kZero3}) {
    const std::string name = StrCat("health", static_cast<int>(shard));
    Train(RanksRecipe(shard), stage, 3, name);
    const nlohmann::json got =
        ReadMetrics(folder_ / (name + "/metrics.jsonl")).at(0).values.at("health");
    EXPECT_EQ(got.at("clip"), want.at("clip")) << name;
    for (const char* kind : {"q_proj", "down_proj"}) {
      // Before the update codes and scale are exact; after it a rounding border may be crossed.
      EXPECT_NEAR(got.at(kind).at("zeros").get<double>(), want.at(kind).at("zeros").get<double>(),
                  1e-3);
      EXPECT_NEAR(got.at(kind).at("flips").get<double>(), want.at(kind).at("flips").get<double>(),
                  1e-3);
      EXPECT_NEAR(got.at(kind).at("grad_norm").get<double>(),
                  want.at(kind).at("grad_norm").get<double>(), 1e-6);
    }
  }
}

// Without rounding of codes in between, all groups of a hybrid hold the same bits.
TEST_F(RanksTest, GroupsOfAHybridHoldTheSameBits) {
  const recipe::TrainStage stage = RanksStage(3);
  for (const Sharding shard : {Sharding::kZero1, Sharding::kZero3}) {
    const recipe::Recipe recipe = RanksRecipe(shard, 2);
    const std::string name = StrCat("groups", static_cast<int>(shard));
    Train(recipe, stage, 4, name);
    const auto found = checkpoint::FindNewestValid(folder_ / (name + "/train"));
    parallel::RunRankThreads(4, [&](parallel::Group& group) {
      TrainState state(recipe, stage, &group);
      LoadTrainState(checkpoint::CheckpointReader(*found.path), &state);
      const data::Batch batch = data::BatchOfStep(tokens_, {16, 12, 42}, 3);
      StepOptions options;
      options.micro_batch = 1;
      options.rank = group.rank();
      options.ranks = 4;
      options.sharding = &state.sharding;
      ForwardBackward(state.decoder, batch, options);
      std::string bits;
      for (const model::Parameter& parameter : state.sharding.owned()) {
        if (parameter.value.numel() == 0) continue;  // No rows here
        const at::Tensor& grad = parameter.value.grad();
        ASSERT_EQ(grad.sizes(), parameter.value.sizes());
        bits.append(static_cast<const char*>(grad.const_data_ptr()), grad.nbytes());
      }
      const std::vector<std::string> all = group.GatherTexts(Sha256Hex(bits));
      EXPECT_EQ(all[0], all[2]) << "ranks 0 and 2 own the same rows";
      EXPECT_EQ(all[1], all[3]);
      EXPECT_NE(all[0], all[1]);
    });
  }
}

TEST_F(RanksTest, GroupsOfAHybridMustDivideTheRanks) {
  try {
    Train(RanksRecipe(Sharding::kZero2, 2), RanksStage(2), 3, "three");
    ADD_FAILURE();
  } catch (const RecipeError& error) {
    EXPECT_NE(std::string(error.what()).find("does not divide 3 ranks"), std::string::npos)
        << error.what();
  }
}

TEST_F(RanksTest, SequencesMustDivideAmongRanks) {
  const recipe::TrainStage stage = RanksStage(2);  // 12 sequences
  try {
    Train(RanksRecipe(Sharding::kNone), stage, 5, "five");
    ADD_FAILURE();
  } catch (const RecipeError& error) {
    EXPECT_NE(std::string(error.what()).find("5 ranks"), std::string::npos) << error.what();
  }
}

// One rank's memory has gone bad: all stop at that step, and all say which.
TEST_F(RanksTest, NanOnOneRankIsNamedByAll) {
  const recipe::Recipe recipe = RanksRecipe(Sharding::kNone);
  const recipe::TrainStage stage = RanksStage(2);
  std::vector<std::string> said(3);
  parallel::RunRankThreads(3, [&](parallel::Group& group) {
    const auto rank = static_cast<size_t>(group.rank());
    const std::string name = StrCat("rank", rank);
    std::filesystem::create_directories(folder_ / name);
    Journal journal(rank == 0 ? folder_ / "journal.jsonl" : "");
    const auto initialize = [&](model::Decoder* decoder) {
      decoder->Initialize(1);
      if (rank == 1) decoder->parameters()[0].value.detach().fill_(NAN);
    };
    try {
      train::Train({recipe, stage, folder_ / "train", folder_ / name, tokens_, journal,
                    "recipe text", 0, initialize, nullptr, nullptr, &group});
      ADD_FAILURE() << rank;
    } catch (const NumericError& error) {
      said[rank] = error.what();
    }
  });
  for (const std::string& words : said) {
    EXPECT_NE(words.find("on rank 1"), std::string::npos) << words;
    EXPECT_EQ(words.find("on rank 1,"), std::string::npos) << words;
  }
}

// A rank that cannot write its part: all say so, the checkpoints before stay.
TEST_F(RanksTest, CheckpointIsWholeOrNotThere) {
  recipe::TrainStage stage = RanksStage(2);
  Train(RanksRecipe(Sharding::kNone), stage, 2, "run");
  const std::string newest = checkpoint::FindNewestValid(folder_ / "run/train").path.value();
  std::filesystem::resize_file(newest + "/rank-0001-of-0002.h5", 1000);
  const auto found = checkpoint::FindNewestValid(folder_ / "run/train");
  EXPECT_FALSE(found.path.has_value());
  ASSERT_EQ(found.refused.size(), 1u);
  EXPECT_NE(found.refused[0].reason.find("rank-0001-of-0002.h5"), std::string::npos);
}

}  // namespace
}  // namespace tern::train
