// Rules across keys and fingerprints.
#include "recipe/check.h"

#include "recipe/fingerprint.h"
#include "recipe/schema.h"
#include "tests/recipe/good_recipe.h"

namespace tern::recipe {
namespace {

TEST(CheckTest, GoodRecipePassesWithoutWarnings) { EXPECT_TRUE(CheckRecipe(Good()).empty()); }

TEST(CheckTest, BatchArithmetic) {
  ExpectRefused([](Recipe& r) { Train(r).tokens_per_step = 4000; },
                {"train.tokens_per_step = 4000", "sequence_length = 256", "try 3840"});
  ExpectRefused([](Recipe& r) { Train(r).tokens_per_step = 100; }, {"try 256"});
  ExpectRefused([](Recipe& r) { Train(r).micro_batch = 3; },
                {"tokens_per_step = 4096", "micro_batch x sequence_length = 768", "try 3840"});
  ExpectRefused([](Recipe& r) { Train(r).sequence_length = 512; },
                {"train.sequence_length = 512", "model.context_length = 256"});
  Recipe recipe = Good();
  Train(recipe).micro_batch = 4;
  EXPECT_EQ(Refusal(recipe), "");
}

TEST(CheckTest, OffloadingIsForGpus) {
  const auto offloads = [](const char* device) {
    return [device](Recipe& r) {
      Train(r).optimizer.offload = true;
      Train(r).device = device;
    };
  };
  ExpectRefused(offloads("cpu"), {"train.optimizer.offload", "train.device is cpu"});
  for (const char* device : {"auto", "cuda"}) {
    Recipe recipe = Good();
    offloads(device)(recipe);
    EXPECT_EQ(Refusal(recipe), "") << device;
  }
}

TEST(CheckTest, HybridShardingAndTimeLimits) {
  ExpectRefused([](Recipe& r) { r.parallel.shard_size = 4; },
                {"parallel.shard_size: found 4 with parallel.shard: none"});
  const auto sharded = [](int64_t size) {
    return [size](Recipe& r) {
      r.parallel.shard = Sharding::kZero1;
      r.parallel.shard_size = size;
    };
  };
  ExpectRefused(sharded(1), {"parallel.shard_size: found 1", "want 2 or more"});
  Recipe recipe = Good();
  sharded(4)(recipe);
  EXPECT_EQ(Refusal(recipe), "");
  ExpectRefused([](Recipe& r) { r.parallel.step_timeout_s = 3600; },
                {"first_step_timeout_s = 1800 is below parallel.step_timeout_s = 3600"});
}

TEST(CheckTest, TensorParallelism) {
  const auto cut = [](int64_t tensor, const std::function<void(Recipe&)>& change = {}) {
    return [=](Recipe& r) {
      r.parallel.tensor = tensor;
      r.model.num_heads = r.model.num_kv_heads = 4;
      r.model.intermediate_size = 768;
      if (change) change(r);
    };
  };
  Recipe recipe = Good();
  cut(2, [](Recipe& r) { r.parallel.shard = Sharding::kZero2; })(recipe);
  EXPECT_EQ(Refusal(recipe), "");
  ExpectRefused(cut(3), {"parallel.tensor: found 3", "does not divide model.num_kv_heads = 4",
                         "whole key/value heads"});
  ExpectRefused(cut(4, [](Recipe& r) { r.model.num_kv_heads = 2; }), {"model.num_kv_heads = 2"});
  ExpectRefused(cut(4,
                    [](Recipe& r) {
                      r.model.intermediate_size = 770;
                      r.stages.resize(2);  // No export, which wants other shapes
                    }),
                {"does not divide model.intermediate_size = 770"});
  ExpectRefused(cut(2, [](Recipe& r) { r.parallel.shard = Sharding::kZero3; }),
                {"parallel.tensor: found 2 together with parallel.shard: zero3"});
  ExpectRefused(cut(2,
                    [](Recipe& r) {
                      r.parallel.shard = Sharding::kZero1;
                      r.parallel.shard_size = 2;
                    }),
                {"together with parallel.shard_size"});
  ExpectRefused(cut(2, [](Recipe& r) { Train(r).lora.rank = 4; }), {"together with train.lora"});
  ExpectRefused(cut(2, [](Recipe& r) { Train(r).quantize.warmup_steps = 4; }),
                {"together with train.quantize"});
}

TEST(CheckTest, ModelShapes) {
  ExpectRefused([](Recipe& r) { r.model.num_kv_heads = 3; }, {"model.num_heads", "num_kv_heads"});
  ExpectRefused([](Recipe& r) { r.model.hidden_size = 255; }, {"model.hidden_size = 255"});
}

TEST(CheckTest, FormatsAgainstShapes) {
  const auto formats = [](const char* format) {
    return [=](Recipe& r) { std::get<ExportStage>(r.stages[2]).formats = {format}; };
  };
  ExpectRefused([](Recipe& r) { r.model.intermediate_size = 500; },
                {"export.formats: gguf/tq2_0", "multiple of 256", "hf/bitnet"});
  ExpectRefused(formats("gguf/f16"), {"export.formats: ", "dense"});
  ExpectRefused(formats("gguf/tq3"), {"unknown format gguf/tq3", "gguf/tq2_0"});
  ExpectRefused(formats("i2_s"), {"unknown format i2_s", "gguf/i2_s"});
  ExpectRefused([](Recipe& r) { std::get<ExportStage>(r.stages[2]).formats.clear(); },
                {"export.formats", "at least one"});
  ExpectRefused([](Recipe& r) { r.model.activation = Activation::kRelu2; }, {"squared ReLU"});
}

TEST(CheckTest, OrderOfStages) {
  ExpectRefused([](Recipe& r) { r.stages.erase(r.stages.begin()); },
                {"eval needs a train stage before it"});
  ExpectRefused([](Recipe& r) { std::swap(r.stages[0], r.stages[2]); },
                {"export needs a train stage before it"});
  ExpectRefused([](Recipe& r) { r.stages.erase(r.stages.begin() + 2); },
                {"generate needs an export stage before it"});
  ExpectRefused([](Recipe& r) { r.stages.insert(r.stages.begin() + 1, VerifyStage{}); },
                {"verify needs an export stage before it"});
  ExpectRefused([](Recipe& r) { r.stages.push_back(TrainStage{}); }, {"second stage", "train"});
}

TEST(CheckTest, ScheduleAndScaling) {
  ExpectRefused([](Recipe& r) { Train(r).schedule.warmup_steps = 100; },
                {"train.schedule.warmup_steps = 100", "train.steps = 100"});
  ExpectRefused([](Recipe& r) { Train(r).schedule.second_lr = 1; }, {"second_lr = 1", "peak_lr"});
  ExpectRefused([](Recipe& r) { Train(r).schedule.final_lr = 1.2e-3; }, {"final_lr", "second_lr"});
  ExpectRefused(
      [](Recipe& r) {
        Train(r).schedule = {.kind = ScheduleKind::kCosine, .peak_lr = 1e-3, .final_lr = 2e-3};
      },
      {"final_lr", "peak_lr"});
  ExpectRefused(
      [](Recipe& r) {
        Train(r).loss_scaling.mode = ScalingMode::kDynamic;
        Train(r).loss_scaling.initial = 0.5;
      },
      {"loss_scaling.initial = 0.5", "loss_scaling.floor = 1"});
}

TEST(CheckTest, HalfPrecision) {
  ExpectRefused(
      [](Recipe& r) {
        r.model.activation = Activation::kRelu2;
        Train(r).precision = Precision::kFp16;
        Train(r).loss_scaling.mode = ScalingMode::kDynamic;
      },
      {"fp16 overflows", "relu2"});
  Recipe recipe = Good();
  Train(recipe).precision = Precision::kFp16;
  const auto warnings = CheckRecipe(recipe);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("loss_scaling"), std::string::npos);
  Train(recipe).loss_scaling.mode = ScalingMode::kDynamic;
  EXPECT_TRUE(CheckRecipe(recipe).empty());
  Train(recipe).precision = Precision::kFp32;
  EXPECT_EQ(CheckRecipe(recipe).size(), 1u);
}

TEST(CheckTest, DataNameAndExpectation) {
  ExpectRefused([](Recipe& r) { r.data.files.clear(); }, {"data.files"});
  ExpectRefused([](Recipe& r) { r.data.files = {"{fetched}/*.txt"}; }, {"data.fetch"});
  ExpectRefused([](Recipe& r) { r.data.validation_fraction = 0; },
                {"data.validation_fraction", "eval"});
  for (const char* name : {"", ".hidden", "a/b", "..", "a\nb"}) {
    ExpectRefused([&](Recipe& r) { r.name = name; }, {"name: "});
  }
  ExpectRefused(
      [](Recipe& r) {
        r.stages.erase(r.stages.begin() + 1);
        r.expect.validation_perplexity_below = 90;
      },
      {"expect.validation_perplexity_below", "eval"});
}

TEST(CheckTest, LoadedRecipeTellsWhereTheValueComesFrom) {
  const auto message = [](const LoadedRecipe& loaded) {
    try {
      CheckRecipe(loaded);
    } catch (const RecipeError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const LoadedRecipe file = RecipeFile(GoodRecipeWith("steps: 100", "tokens_per_step: 100")).Load();
  EXPECT_EQ(message(file).rfind(file.path + ":6:13: train.tokens_per_step = 100", 0), 0u)
      << message(file);
  const LoadedRecipe line = RecipeFile(kGoodRecipe).Load({"train.sequence_length=512"});
  EXPECT_EQ(message(line).rfind("command line: train.sequence_length = 512", 0), 0u);
  const LoadedRecipe defaulted = RecipeFile(kGoodRecipe).Load({"train.micro_batch=3"});
  EXPECT_EQ(message(defaulted).rfind(defaulted.path + ": train.tokens_per_step", 0), 0u);
}

std::vector<std::string> Changes(const std::vector<std::string>& overrides, size_t stage) {
  const RecipeFile file(kGoodRecipe);
  const Recipe before = file.Load().recipe, now = file.Load(overrides).recipe;
  return Differences(FingerprintOf(before, before.stages[stage]),
                     FingerprintOf(now, now.stages[stage]));
}

using Lines = std::vector<std::string>;

TEST(FingerprintTest, NamesWhatChanged) {
  EXPECT_EQ(Changes({}, 0), Lines{});
  EXPECT_EQ(Changes({"train.steps=99"}, 0), Lines{"train.steps: was 100, now 99"});
  EXPECT_EQ(Changes({"train.schedule.peak_lr=0.002", "seed=1"}, 0),
            (Lines{"seed: was 42, now 1", "train.schedule.peak_lr: was 0.0015, now 0.002"}));
  EXPECT_EQ(Changes({"model.num_layers=3"}, 0), Lines{"model.num_layers: was 2, now 3"});
  EXPECT_EQ(Changes({"data.packing=documents"}, 0),
            Lines{"data.packing: was stream, now documents"});
  EXPECT_EQ(Changes({"eval.perplexity.tokens=5"}, 1),
            Lines{"eval.perplexity.tokens: was 0, now 5"});
}

TEST(FingerprintTest, CadencesThreadsBudgetAndMoreStepsMayChange) {
  EXPECT_EQ(Changes({"train.steps=101", "threads=1", "train.eval_every=7", "train.eval_tokens=1",
                     "train.checkpoint_every=3", "train.keep_last=1", "train.keep_best=false",
                     "train.health_every=0", "budget.minutes=3", "name=other",
                     "expect.validation_perplexity_below=3"},
                    0),
            Lines{});
}

void MixTwo(Recipe& r) {
  r.data.files.clear();
  r.data.tokenizer.file = "t.model";
  r.data.sources.resize(2);
  for (size_t i = 0; i < 2; ++i) {
    r.data.sources[i].name = i == 0 ? "a" : "b";
    r.data.sources[i].files = {"x.jsonl"};
  }
}

TEST(CheckTest, SourcesNeedATokenizerAndSomethingToTrainOn) {
  Recipe good = Good();
  MixTwo(good);
  EXPECT_EQ(Refusal(good), "");
  const auto refused = [](const std::function<void(Recipe&)>& change,
                          std::initializer_list<const char*> words) {
    ExpectRefused(
        [&](Recipe& r) {
          MixTwo(r);
          change(r);
        },
        words);
  };
  refused([](Recipe& r) { r.data.files = {"y"}; }, {"data.files", "beside data.sources"});
  refused([](Recipe& r) { r.data.validation_files = {"y"}; }, {"data.validation_files"});
  refused([](Recipe& r) { r.data.tokenizer.file.clear(); }, {"data.tokenizer.file"});
  refused([](Recipe& r) { r.data.sources[1].files.clear(); }, {"data.sources.b.files"});
  refused([](Recipe& r) { r.data.sources[1].files = {"{fetched}/a"}; }, {"data.sources.b.files"});
  refused(
      [](Recipe& r) {
        for (auto& s : r.data.sources) s.split = SourceSplit::kValidation;
      },
      {"data.sources.a.split", "train"});
  refused([](Recipe& r) { r.data.validation_fraction = 0; }, {"data.validation_fraction"});
  good.data.validation_fraction = 0;
  good.data.sources[1].split = SourceSplit::kValidation;
  EXPECT_EQ(Refusal(good), "") << "a source that is held out is validation text";
  EXPECT_TRUE(FingerprintOf(good, PrepareStage{}).contains("data.sources.b.weight"));
}

TEST(CheckTest, InstructionsAreJsonOfTheirOwnContext) {
  Recipe good = Good();
  MixTwo(good);
  good.data.sources[0].record = SourceRecord::kMessages;
  good.data.packing = Packing::kSamples;
  EXPECT_EQ(Refusal(good), "");
  const auto refused = [&](const std::function<void(Recipe&)>& change,
                           std::initializer_list<const char*> words) {
    ExpectRefused(
        [&](Recipe& r) {
          r = good;
          change(r);
        },
        words);
  };
  refused([](Recipe& r) { r.data.sources[0].format = SourceFormat::kParquet; },
          {"data.sources.a.record", "not JSON", "jsonl"});
  refused([](Recipe& r) { r.data.packing = Packing::kStream; },
          {"data.sources.a.record", "data.packing: stream", "samples"});
  const auto taught = [](Recipe& r) {
    r.teacher.from = "model";
    Train(r).losses.forward_kl.weight.first = 1;
    Train(r).losses.rows = LossRows::kAll;
  };
  refused(taught, {"train.losses.rows", "padding", "prompts_count"});
  taught(good);
  good.data.packing = Packing::kDocuments;
  EXPECT_EQ(Refusal(good), "");
}

// A dense model with one rule and no export.
TEST(FingerprintTest, AStageDependsOnItsOwnPartOnly) {
  EXPECT_EQ(Changes({"train.steps=7", "seed=1", "model.num_layers=3"}, 3), Lines{});
  EXPECT_EQ(Changes({"generate.tokens=9"}, 0), Lines{});
  const Recipe recipe = Good();
  const Fingerprint prepare = FingerprintOf(recipe, PrepareStage{});
  EXPECT_TRUE(prepare.contains("data.files"));
  EXPECT_TRUE(prepare.contains("seed"));
  EXPECT_FALSE(prepare.contains("model.num_layers"));
}

// A run of a version that had no eval.recovery goes on where it is not asked for.
TEST(FingerprintTest, ANewKeyAtItsDefaultIsNoDifference) {
  Recipe recipe = Good();
  EvalStage eval;
  eval.tokens = 512;
  const Fingerprint now = FingerprintOf(recipe, eval);
  Fingerprint before = now;
  ASSERT_EQ(before.erase("eval.recovery"), 1u);
  EXPECT_EQ(Differences(before, now), Lines{"eval.recovery: is new, false"});
  EXPECT_EQ(Differences(WithNewKeys(before, now, eval), now), Lines{});
  eval.recovery = true;
  const Fingerprint asked = FingerprintOf(recipe, eval);
  EXPECT_EQ(Differences(WithNewKeys(before, asked, eval), asked),
            Lines{"eval.recovery: was false, now true"});
  before["eval.perplexity.tokens"] = "1";  // What was written stays
  EXPECT_EQ(Differences(WithNewKeys(before, now, eval), now),
            Lines{"eval.perplexity.tokens: was 1, now 512"});
}

// Of a rule, too: but not a rule that is new as a whole.
TEST(FingerprintTest, ANewKeyOfARuleAtItsDefaultIsNoDifference) {
  Recipe recipe = Good();
  Quantize(recipe, WeightQuantizer::kInt3);
  const Stage& stage = recipe.stages[0];
  const Fingerprint now = FingerprintOf(recipe, stage);
  Fingerprint before = now;
  ASSERT_EQ(before.erase("train.quantize.rules.body.rounding"), 1u);
  ASSERT_EQ(before.erase("train.losses.balance.every"), 1u);
  EXPECT_EQ(Differences(WithNewKeys(before, now, stage), now), Lines{});
  for (auto key = before.begin(); key != before.end();)
    key = key->first.starts_with("train.quantize.rules.") ? before.erase(key) : std::next(key);
  EXPECT_NE(Differences(WithNewKeys(before, now, stage), now), Lines{});
}

TEST(FingerprintTest, KeysThatComeAndGoAreDifferences) {
  EXPECT_EQ(Differences({{"a", "1"}}, {{"b", "2"}}), (Lines{"b: is new, 2", "a: was 1, is gone"}));
}

}  // namespace
}  // namespace tern::recipe
