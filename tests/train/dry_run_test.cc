// One rank without the others counts what it counts among them: against real groups of 2, 3 and 4
// ranks (the same steps, and whole trainings), against the plan, and against a closed formula.
#include "train/dry_run.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "plan/rank_share.h"
#include "tests/parallel/rank_threads.h"
#include "tests/testing/temp_folder.h"
#include "tests/train/tiny_run.h"
#include "train/train.h"

namespace tern::train {
namespace {

using parallel::TrafficByKind;
using recipe::Sharding;

constexpr Sharding kShardings[] = {Sharding::kNone, Sharding::kZero1, Sharding::kZero2,
                                   Sharding::kZero3};

// Units of 128, 64 and 16 rows: three and four ranks get uneven parts, some none.
recipe::Recipe DryRecipe(Sharding shard) {
  recipe::Recipe recipe = TinyRecipe();
  recipe.model.vocab_size = 512;
  recipe.model.hidden_size = 64;
  recipe.model.intermediate_size = 256;
  recipe.parallel.shard = shard;
  recipe.parallel.bucket_mib = 0.05;
  return recipe;
}

recipe::TrainStage DryStage() {
  recipe::TrainStage stage = TinyStage();
  stage.tokens_per_step = 12 * 16;
  stage.micro_batch = 1;
  stage.eval_every = 0;
  stage.health_every = 0;
  stage.checkpoint_every = 1000;
  stage.steps = 3;
  return stage;
}

std::unique_ptr<parallel::Group> Fake(int rank, int ranks, int per_machine = 0) {
  parallel::Topology topology;
  topology.rank = rank;
  topology.world = ranks;
  topology.local_world = per_machine > 0 ? per_machine : ranks;
  topology.local_rank = rank % topology.local_world;
  return parallel::Group::Fake(topology);
}

void ExpectEqual(const TrafficByKind& found, const TrafficByKind& want, const std::string& what,
                 int64_t times = 1) {
  for (const auto& [kind, traffic] : want) {
    if (kind == "control") continue;
    ASSERT_TRUE(found.contains(kind)) << what << ": " << kind;
    EXPECT_EQ(found.at(kind).payload_bytes, times * traffic.payload_bytes) << what << ": " << kind;
    EXPECT_EQ(found.at(kind).calls, times * traffic.calls) << what << ": " << kind;
    EXPECT_EQ(found.at(kind).collective, traffic.collective) << what << ": " << kind;
  }
  for (const auto& [kind, traffic] : found) {
    EXPECT_TRUE(kind == "control" || want.contains(kind)) << what << ": " << kind;
  }
}

class DryRunTest : public ::testing::Test {
 protected:
  DryRunTest() { at::set_num_threads(1); }
};

TEST_F(DryRunTest, CountsWhatRealRanksCount) {
  for (const int ranks : {2, 3, 4}) {
    for (const Sharding shard : kShardings) {
      recipe::Recipe recipe = DryRecipe(shard);
      if (ranks == 4 && shard != Sharding::kNone && shard != Sharding::kZero2)
        recipe.parallel.shard_size = 2;  // Hybrid
      if (ranks == 3) recipe.parallel.reduce = recipe::ReduceType::kBf16;
      const recipe::TrainStage stage = DryStage();
      std::vector<DryRunResult> real(static_cast<size_t>(ranks));
      parallel::RunRankThreads(ranks, [&](parallel::Group& group) {
        real[static_cast<size_t>(group.rank())] = DryRun(recipe, stage, group);
      });
      for (int rank = 0; rank < ranks; ++rank) {
        const std::string what =
            StrCat("rank ", rank, " of ", ranks, ", zero", static_cast<int>(shard));
        const DryRunResult& want = real[static_cast<size_t>(rank)];
        const DryRunResult found = DryRun(recipe, stage, *Fake(rank, ranks));
        ExpectEqual(found.traffic, want.traffic, what);
        EXPECT_EQ(found.traffic.at("control").payload_bytes,
                  want.traffic.at("control").payload_bytes);
        for (const auto& [kind, traffic] : want.traffic)
          EXPECT_EQ(found.traffic.at(kind).sent_bytes, traffic.sent_bytes) << what << ": " << kind;
        ExpectEqual(
            plan::SentBy(recipe.model, recipe.parallel, {ranks, ranks}, rank, {0, 12 / ranks}),
            want.traffic, what + ", planned");
        const plan::HeldByRank held =
            plan::HeldBy(recipe.model, recipe.parallel, {ranks, ranks}, rank);
        for (const DryRunResult* result : {&want, &found}) {
          EXPECT_EQ(result->parameters, held.parameters) << what;
          EXPECT_EQ(result->gradients, held.gradients) << what;
          EXPECT_EQ(result->moments, held.moments) << what;
          EXPECT_EQ(result->codes, held.codes) << what;
        }
      }
    }
  }
}

// Products that ranks share (parallel.tensor): sums, columns, rows for the scales.
TEST_F(DryRunTest, CountsWhatTensorRanksCount) {
  struct Axes {
    int ranks;
    int64_t tensor;
    Sharding shard;
  };
  for (const auto& [ranks, tensor, shard] :
       {Axes{2, 2, Sharding::kNone}, Axes{4, 2, Sharding::kZero1}, Axes{4, 4, Sharding::kNone},
        Axes{4, 2, Sharding::kNone}}) {
    for (const bool bit : {true, false}) {
      recipe::Recipe recipe = DryRecipe(shard);
      recipe.parallel.tensor = tensor;
      recipe.model.num_heads = recipe.model.num_kv_heads = 4;
      recipe.model.qk_norm = true;
      recipe.model.sub_norms = tensor == 4                ? SubNorms::kNone
                               : shard == Sharding::kNone ? SubNorms::kEveryLinear
                                                          : SubNorms::kOutputs;
      recipe.model.linear = bit ? LinearKind::kBitLinear : LinearKind::kDense;
      recipe::TrainStage stage = DryStage();
      if (tensor == 4) stage.activation_checkpointing = recipe::ActivationCheckpointing::kBlock;
      std::vector<DryRunResult> real(static_cast<size_t>(ranks));
      parallel::RunRankThreads(ranks, [&](parallel::Group& group) {
        real[static_cast<size_t>(group.rank())] = DryRun(recipe, stage, group);
      });
      for (int rank = 0; rank < ranks; ++rank) {
        const std::string what =
            StrCat("rank ", rank, " of ", ranks, ", tensor ", tensor, bit ? "" : ", dense");
        const DryRunResult& want = real[static_cast<size_t>(rank)];
        const DryRunResult found = DryRun(recipe, stage, *Fake(rank, ranks));
        ExpectEqual(found.traffic, want.traffic, what);
        ExpectEqual(found.sent, want.traffic, what + ", planned");
        EXPECT_EQ(found.parameters, found.planned.parameters) << what;
        EXPECT_EQ(found.gradients, found.planned.gradients) << what;
        EXPECT_EQ(found.moments, found.planned.moments) << what;
        EXPECT_EQ(found.codes, found.planned.codes) << what;
      }
    }
  }
}

// A training of three steps sends three times what a dry step does; the codes once more, for the
// evaluation of the last weights.
TEST_F(DryRunTest, WholeTrainingsSendTheSame) {
  const data::TokenFile tokens = Tokens();
  const tern::testing::TempFolder folder;
  const recipe::TrainStage stage = DryStage();
  for (const int ranks : {2, 3, 4}) {
    for (const Sharding shard : {Sharding::kNone, Sharding::kZero1, Sharding::kZero3}) {
      const recipe::Recipe recipe = DryRecipe(shard);
      const std::string name = StrCat(folder / "run", ranks, "_", static_cast<int>(shard));
      std::filesystem::create_directories(name);
      std::vector<TrafficByKind> sent(static_cast<size_t>(ranks));
      parallel::RunRankThreads(ranks, [&](parallel::Group& group) {
        Journal journal(group.is_root() ? name + "/journal.jsonl" : "");
        Train({recipe,
               stage,
               name + "/train",
               name,
               tokens,
               journal,
               "recipe text",
               0,
               {},
               nullptr,
               nullptr,
               &group});
        sent[static_cast<size_t>(group.rank())] = group.traffic();
      });
      for (int rank = 0; rank < ranks; ++rank) {
        const std::string what = StrCat(name, ", rank ", rank);
        TrafficByKind found = sent[static_cast<size_t>(rank)];
        TrafficByKind want = DryRun(recipe, stage, *Fake(rank, ranks)).traffic;
        for (const char* kind : {"codes", "scales"}) {
          if (!want.contains(kind)) continue;
          ExpectEqual({{kind, found.at(kind)}}, {{kind, want.at(kind)}}, what, 4);
          found.erase(kind);
          want.erase(kind);
        }
        ExpectEqual(found, want, what, 3);
      }
    }
  }
}

// All parts even: by hand. Width 64, FFN 256, two layers; four ranks, three backward passes.
TEST_F(DryRunTest, BytesByAClosedFormula) {
  constexpr int64_t kD = 64, kF = 256, kV = 1024, kRanks = 4, kPasses = 3;
  recipe::Recipe recipe = DryRecipe(Sharding::kZero3);
  recipe.model.vocab_size = kV;
  recipe.model.hidden_size = kD;
  recipe.model.num_heads = recipe.model.num_kv_heads = 4;
  recipe.model.intermediate_size = kF;
  recipe.model.tied_head = false;
  recipe.model.sub_norms = SubNorms::kOutputs;
  const TrafficByKind sent = DryRun(recipe, DryStage(), *Fake(2, kRanks)).traffic;
  // q, k, v, o: one unit of 64 rows each, so that rank 3 has all of them; gate and up: four units;
  // down: four units of 16 rows.
  const auto even = [](int64_t rows, int64_t k) { return 4 * rows * k * 3 / 4; };
  const int64_t attention = 4 * 4 * kD * kD;  // Sent whole: rank 2 has none of it
  const int64_t layer = attention + 2 * even(kF, kD) + even(kD, kF);
  const int64_t vocabulary = 2 * even(kV, kD);
  EXPECT_EQ(sent.at("gradients").payload_bytes, kPasses * (2 * layer + vocabulary));
  EXPECT_EQ(sent.at("gradients").calls, kPasses * (2 * 7 + 2));
  // Norms: two and two sub-norms a layer, one at the end.
  EXPECT_EQ(sent.at("small gradients").payload_bytes, 4 * (2 * (3 * kD + kF) + kD));
  EXPECT_EQ(sent.at("small gradients").calls, 1);
  EXPECT_EQ(sent.at("values").payload_bytes, vocabulary);
  EXPECT_EQ(sent.at("values").calls, 2);
  // Every rank's part of a layer's codes is as long as that of rank 3, which has q, k, v and o, and
  // a quarter of the rest; rows are blocks of 128 codes in 32 bytes.
  const int64_t codes = sent.at("codes").payload_bytes;
  EXPECT_EQ(sent.at("codes").calls, 2);
  EXPECT_EQ(codes % (2 * (kRanks - 1)), 0);
  EXPECT_EQ(codes / (2 * (kRanks - 1)), 4 * kD * 32 + 2 * (kF / 4) * 32 + (kD / 4) * 64);
  // A block of 4,096 weights: 64 x 64 is one.
  EXPECT_EQ(sent.at("scales").payload_bytes, (kRanks - 1) * 4 * 2 * (4 + 3));
  EXPECT_EQ(sent.at("scales").calls, 1);
}

// 512 ranks have fewer units of rows than ranks: some send without holding anything.
TEST_F(DryRunTest, RanksWithoutRowsOfManyMachines) {
  const recipe::Recipe recipe = DryRecipe(Sharding::kZero3);
  recipe::TrainStage stage = DryStage();
  stage.tokens_per_step = 512 * 16;
  for (const int rank : {0, 300, 511}) {
    const DryRunResult found = DryRun(recipe, stage, *Fake(rank, 512, 8));
    const plan::HeldByRank held = plan::HeldBy(recipe.model, recipe.parallel, {512, 8}, rank);
    EXPECT_EQ(found.parameters, held.parameters) << rank;
    EXPECT_EQ(found.moments, held.moments) << rank;
    const TrafficByKind planned =
        plan::SentBy(recipe.model, recipe.parallel, {512, 8}, rank, {0, 1});
    ExpectEqual(found.traffic, planned, StrCat("rank ", rank));
    for (const auto& [kind, traffic] : planned) {
      EXPECT_DOUBLE_EQ(found.traffic.at(kind).near_bytes, traffic.near_bytes) << kind;
      EXPECT_DOUBLE_EQ(found.traffic.at(kind).far_bytes, traffic.far_bytes) << kind;
    }
  }
}

// Between steps there is what the parts say, and the tables of positions and a step's token ids.
TEST_F(DryRunTest, AllocatorCountsTheState) {
  for (const Sharding shard : {Sharding::kZero1, Sharding::kZero3}) {
    const recipe::Recipe recipe = DryRecipe(shard);
    const DryRunResult result = DryRun(recipe, DryStage(), *Fake(1, 2));
    const int64_t state = result.parameters + result.moments + result.codes;
    const int64_t tables = 2 * 4 * recipe.model.context_length * recipe.model.HeadDim();
    EXPECT_GE(result.resting, state);
    EXPECT_LE(result.resting, state + tables + 1024);
    EXPECT_GT(result.peak, result.resting + result.gradients);
  }
}

TEST_F(DryRunTest, RefusesWhatDoesNotFitBeforeItIsMade) {
  recipe::Recipe recipe = DryRecipe(Sharding::kNone);
  recipe.model.hidden_size = 16384;
  recipe.model.intermediate_size = 65536;
  recipe.model.num_heads = recipe.model.num_kv_heads = 128;
  recipe.model.num_layers = 200;
  try {
    DryRun(recipe, DryStage(), *Fake(0, 2));
    ADD_FAILURE();
  } catch (const ResourceError& error) {
    EXPECT_NE(std::string(error.what()).find("keeps that rank's tensors"), std::string::npos)
        << error.what();
  }
  recipe::TrainStage stage = DryStage();
  EXPECT_THROW(DryRun(DryRecipe(Sharding::kNone), stage, *Fake(0, 5)), RecipeError);
  stage.lora.rank = 4;
  EXPECT_THROW(DryRun(DryRecipe(Sharding::kNone), stage, *Fake(0, 2)), RecipeError);
}

TEST_F(DryRunTest, TheTextComparesWithThePlan) {
  const recipe::Recipe recipe = DryRecipe(Sharding::kZero3);
  const plan::TrainPlan plan =
      plan::PlanTraining(recipe, DryStage(), 0, {.ranks = 4, .rank = 3, .per_machine = 2});
  DryRunResult result = DryRun(recipe, DryStage(), *Fake(3, 4, 2));
  std::string text = FormatDryRun(plan, result);
  EXPECT_NE(text.find("sent what the plan says, to the byte"), std::string::npos) << text;
  ++result.traffic.at("values").payload_bytes;
  text = FormatDryRun(plan, result);
  EXPECT_NE(text.find("differs from the plan in: values"), std::string::npos) << text;
}

}  // namespace
}  // namespace tern::train
