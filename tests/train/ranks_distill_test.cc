// Data parallel ranks with losses against a teacher, fake quantizers, adapters and frozen
// parameters: the steps of one process, and checkpoints that any other number goes on from.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "distill/engine_teacher.h"
#include "engine/model_source.h"
#include "model/decoder.h"
#include "tests/train/quantized_teacher.h"
#include "tests/train/ranks_run.h"
#include "train/placement.h"

namespace tern::train {
namespace {

using recipe::Sharding;
using recipe::WeightQuantizer;

recipe::Recipe DenseRecipe(Sharding shard, int64_t shard_size = 0) {
  recipe::Recipe recipe = RanksRecipe(shard, shard_size);
  recipe.model.linear = LinearKind::kDense;
  return recipe;
}

recipe::QuantizeRule Rule(const std::string& name, const std::string& layers,
                          WeightQuantizer weights) {
  recipe::QuantizeRule rule;
  rule.name = name;
  rule.layers = {layers};
  rule.weights = weights;
  return rule;
}

class DistillRanksTest : public RanksTest {
 protected:
  // Another width than the student's, so that the hidden loss has a projection.
  DistillRanksTest() : wide_(WideModel()) {
    wide_.Initialize(11);
    teacher_ = [this] { return std::make_unique<distill::DecoderTeacher>(wide_); };
  }

  static ModelConfig WideModel() {
    ModelConfig config = DenseRecipe(Sharding::kNone).model;
    config.hidden_size = 96;
    return config;
  }

  static recipe::TrainStage Stage(int64_t steps) {
    recipe::TrainStage stage = RanksStage(steps);
    stage.losses.forward_kl.weight = {2, 1};
    stage.losses.hidden.weight = {0.5, -1};
    stage.losses.relations.weight = {1, -1};
    stage.losses.balance.by = recipe::BalanceBy::kGradientNorm;
    stage.losses.balance.every = 3;
    stage.losses.log_gradients_every = 1;
    return stage;
  }

  struct Case {
    const char* name;
    int ranks;
    recipe::Recipe recipe;
  };
  static std::vector<Case> Cases() {
    return {{"none", 2, DenseRecipe(Sharding::kNone)},
            {"zero1", 3, DenseRecipe(Sharding::kZero1)},
            {"zero2", 2, DenseRecipe(Sharding::kZero2)},
            {"hybrid", 4, DenseRecipe(Sharding::kZero2, /*shard_size=*/2)}};
  }

  // AdamW's means of all gradients, of the decoder and of what is beside it, are those of one
  // process. fp32 sums of other orders over 192 tokens: 2^-24 a term, 1e-4 of the largest is a
  // hundred times as much as what comes together, and below what a lost or doubled part would be.
  void Check(const recipe::TrainStage& stage) {
    recipe::Recipe one = DenseRecipe(Sharding::kNone);
    one.data.packing = packing_;
    Train(one, stage, 1, "one");
    const std::map<std::string, std::string> want = Bits("one");
    for (auto [name, ranks, recipe] : Cases()) {
      recipe.data.packing = packing_;
      Train(recipe, stage, ranks, name);
      EXPECT_EQ(Hashes(name), Hashes("one")) << name;
      const std::map<std::string, std::string> got = Bits(name);
      ASSERT_EQ(got.size(), want.size()) << name;
      for (const auto& [tensor, bytes] : want) {
        if (!tensor.starts_with(checkpoint::kExpAvgGroup)) continue;
        const at::Tensor a = Floats(bytes), b = Floats(got.at(tensor));
        EXPECT_LE((a - b).abs().max().item<double>(), 1e-4 * a.abs().max().item<double>())
            << name << " " << tensor;
      }
    }
  }
  static at::Tensor Floats(const std::string& bytes) {
    at::Tensor values = at::empty({static_cast<int64_t>(bytes.size() / sizeof(float))}, at::kFloat);
    std::memcpy(values.data_ptr(), bytes.data(), bytes.size());
    return values;
  }
  nlohmann::json FirstLosses(const std::string& name) {
    return ReadMetrics(folder_ / (name + "/metrics.jsonl")).at(0).values.at("losses");
  }

  model::Decoder wide_;
  recipe::Packing packing_ = recipe::Packing::kStream;
};

// Every loss's value and gradient norm is that of all sequences, not of a rank's. fp32 sums of
// other orders: relative 1e-5 at the first step.
TEST_F(DistillRanksTest, LossesAgainstATeacherAreThoseOfOneProcess) {
  Check(Stage(1));
  for (const char* name : {"none", "zero1", "zero2", "hybrid"}) {
    for (const char* loss : {"forward_kl", "hidden", "relations", "cross_entropy"}) {
      for (const char* what : {"value", "grad_norm", "weight"}) {
        const double want = FirstLosses("one").at(loss).at(what).get<double>();
        ASSERT_GT(want, 0) << loss << " " << what;
        EXPECT_NEAR(FirstLosses(name).at(loss).at(what).get<double>(), want, 1e-5 * want)
            << name << " " << loss << " " << what;
      }
    }
  }
}

// Every rank writes its rows, and all train on what one process writes: the same number of tokens
// and hash, losses and gradients of the mean over the tokens of all. Prompts end with their first
// document, so that rows and ranks write more or fewer tokens.
TEST_F(DistillRanksTest, GeneratedTextIsThatOfOneProcess) {
  packing_ = recipe::Packing::kDocuments;
  for (const recipe::GeneratedBy by :
       {recipe::GeneratedBy::kStudent, recipe::GeneratedBy::kTeacher}) {
    SCOPED_TRACE(by == recipe::GeneratedBy::kStudent ? "student" : "teacher");
    recipe::TrainStage stage = Stage(1);
    stage.losses.reverse_kl.weight = {1, -1};
    stage.losses.generated.by = by;
    stage.losses.generated.share = 1;
    stage.losses.generated.prompt_tokens = 13;
    Check(stage);
    const auto written = [&](const std::string& name) {
      return ReadMetrics(folder_ / (name + "/metrics.jsonl")).at(0).values.at("generated");
    };
    const nlohmann::json want = written("one");
    EXPECT_EQ(want.at("by"), by == recipe::GeneratedBy::kStudent ? "student" : "teacher");
    // Four of each of the twelve sequences, and more where a document ends in the first 13.
    EXPECT_GE(want.at("tokens"), 12 * 4);
    for (const Case& c : Cases()) {
      EXPECT_EQ(written(c.name), want) << c.name;
      for (const char* loss : {"forward_kl", "reverse_kl", "hidden", "cross_entropy"}) {
        const double value = FirstLosses("one").at(loss).at("value").get<double>();
        EXPECT_NEAR(FirstLosses(c.name).at(loss).at("value").get<double>(), value, 1e-5 * value)
            << c.name << " " << loss;
      }
      std::filesystem::remove_all(folder_ / c.name);
    }
    std::filesystem::remove_all(folder_ / "one");
  }
}

// A training that was begun by one process and goes on with two ranks, and the other way.
TEST_F(DistillRanksTest, GeneratedTextGoesOnWithOtherRanks) {
  recipe::TrainStage stage = Stage(4);
  stage.losses.generated.by = recipe::GeneratedBy::kStudent;
  stage.losses.generated.share = 0.8;
  stage.losses.generated.prompt_tokens = 6;
  stage.schedule.kind = recipe::ScheduleKind::kConstant;
  stage.losses.forward_kl.weight = {1, -1};
  stage.optimizer.weight_decay_until = 1;
  const auto records = [&](const std::string& name) {
    std::vector<std::string> all;
    for (const MetricsRecord& record : ReadMetrics(folder_ / (name + "/metrics.jsonl")))
      all.push_back(record.values.value("generated", nlohmann::json()).dump());
    return all;
  };
  Train(DenseRecipe(Sharding::kNone), stage, 1, "one");
  const std::vector<std::string> want = records("one");
  EXPECT_LT(std::count(want.begin(), want.end(), "null"), 4);
  recipe::TrainStage part = stage;
  part.steps = 2;
  for (const auto& [first, second] : {std::pair(1, 2), {2, 1}}) {
    const std::string name = StrCat("from", first);
    Train(DenseRecipe(Sharding::kZero1), part, first, name);
    Train(DenseRecipe(Sharding::kZero1), stage, second, name);
    EXPECT_EQ(records(name), want) << name;
  }
}

// A quantized teacher that the engine runs for each rank: its logits have the same bits in any
// rank's part of a step, so ranks differ by the order of sums alone, as above. To the same bits
// after a stop, with the ranks and with another number.
TEST_F(DistillRanksTest, ATeacherByTheEngineIsThatOfOneProcess) {
  ModelConfig config = DenseRecipe(Sharding::kNone).model;
  config.sub_norms = SubNorms::kNone;
  WriteQuantizedTeacher(config, folder_ / "teacher.gguf");
  teacher_ = [this] {
    return std::make_unique<distill::EngineTeacher>(engine::LoadModel(folder_ / "teacher.gguf"),
                                                    /*longest=*/16);
  };
  recipe::TrainStage stage = RanksStage(1);
  stage.losses.forward_kl.weight = {2, 1};
  stage.losses.topk_kl.weight = {0.5, -1};
  stage.losses.topk_k = 8;
  Check(stage);
  for (const char* name : {"none", "zero1", "zero2", "hybrid"}) {
    for (const char* loss : {"forward_kl", "topk_kl", "cross_entropy"}) {
      const double want = FirstLosses("one").at(loss).at("value").get<double>();
      ASSERT_GT(want, 0) << loss;
      EXPECT_NEAR(FirstLosses(name).at(loss).at("value").get<double>(), want, 1e-5 * want)
          << name << " " << loss;
    }
  }
  stage.losses.forward_kl.weight = {1, -1};
  stage.schedule.kind = recipe::ScheduleKind::kConstant;
  stage.optimizer.weight_decay_until = 1;
  stage.steps = 6;
  Train(DenseRecipe(Sharding::kZero1), stage, 2, "whole");
  stage.steps = 3;
  Train(DenseRecipe(Sharding::kZero1), stage, 2, "cut");
  stage.steps = 6;
  Train(DenseRecipe(Sharding::kZero1), stage, 2, "cut");
  EXPECT_TRUE(Bits("cut") == Bits("whole"));
}

TEST_F(DistillRanksTest, FakeQuantizersAndLearnedScalesAreThoseOfOneProcess) {
  recipe::TrainStage stage = Stage(1);
  stage.quantize.rules = {Rule("body", "*", WeightQuantizer::kInt4),
                          Rule("down", "down_proj", WeightQuantizer::kLsq4)};
  Check(stage);
}

// In the second step: in the first one B is 0, and A gets nothing. No quantizer sees an adapter,
// which could round to another code then.
TEST_F(DistillRanksTest, AdaptersAreThoseOfOneProcess) {
  recipe::TrainStage stage = Stage(2);
  stage.losses.hidden.weight = {};
  stage.quantize.rules = {Rule("down", "down_proj", WeightQuantizer::kInt4)};
  stage.lora.rank = 3;  // Fewer rows of A than the four ranks of a hybrid
  stage.lora.layers = {"q_proj", "up_proj"};
  Check(stage);
}

TEST_F(DistillRanksTest, FrozenParametersStay) {
  teacher_ = nullptr;
  recipe::TrainStage stage = RanksStage(1);
  stage.freeze = {"model.embed_tokens", "model.layers.0.*"};
  Check(stage);
}

// Learned scales, adapters and projections are in the parts of a checkpoint once.
TEST_F(DistillRanksTest, GoesOnToTheSameBitsAndWithOtherRanks) {
  recipe::TrainStage stage = Stage(6);
  stage.quantize.rules = {Rule("body", "*", WeightQuantizer::kLsq4)};
  stage.lora.rank = 3;
  stage.schedule.kind = recipe::ScheduleKind::kConstant;
  stage.losses.forward_kl.weight = {1, -1};
  stage.optimizer.weight_decay_until = 1;
  for (const auto& [ranks, shard] : {std::pair(2, Sharding::kNone), {4, Sharding::kZero1}}) {
    const std::string name = StrCat("ranks", ranks);
    Train(DenseRecipe(shard), stage, ranks, name + "whole");
    recipe::TrainStage part = stage;
    part.steps = 3;
    Train(DenseRecipe(shard), part, ranks, name + "cut");
    Train(DenseRecipe(shard), stage, ranks, name + "cut");
    EXPECT_TRUE(Bits(name + "cut") == Bits(name + "whole")) << name;
    stage.steps = 7;
    Train(DenseRecipe(Sharding::kNone), stage, 1, name + "whole");
    EXPECT_EQ(Series(name + "whole", "step").size(), 7u);
    stage.steps = 6;
  }
}

TEST(PlacementTest, AnEngineTeacherStaysOnTheCpuUnlessAStoreSpeaksForIt) {
  recipe::Recipe recipe = DenseRecipe(Sharding::kNone);
  recipe::TrainStage stage;
  stage.id = "train";
  recipe.teacher_runtime = recipe::Runtime::kEngine;
  EXPECT_EQ(WhyNotOnGpu(recipe, stage), "");  // No loss asks it
  stage.losses.topk_kl.weight = {1, -1};
  EXPECT_EQ(WhyNotOnGpu(recipe, stage),
            "train: teacher.runtime: engine runs the teacher on the CPU, for students there");
  recipe.teacher_store = "store";
  EXPECT_EQ(WhyNotOnGpu(recipe, stage), "");
}

TEST(PlacementTest, SaysWhatRanksCannot) {
  recipe::Recipe recipe = DenseRecipe(Sharding::kZero2);
  recipe::TrainStage stage;
  stage.id = "train";
  stage.losses.forward_kl.weight = {1, -1};
  EXPECT_EQ(WhyNotByRanks(recipe, stage), "");
  stage.losses.generated.by = recipe::GeneratedBy::kStudent;
  EXPECT_EQ(WhyNotByRanks(recipe, stage), "");
  recipe.parallel.shard = Sharding::kZero3;
  EXPECT_NE(WhyNotByRanks(recipe, stage).find("zero3; want none, zero1 or zero2"),
            std::string::npos)
      << WhyNotByRanks(recipe, stage);
}

}  // namespace
}  // namespace tern::train
