// Tensor parallelism: ranks that share every product compute what one rank does. Of BitLinear the
// forward pass has its bits; gradients are sums in another order.
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/sha256.h"
#include "data/loader.h"
#include "eval/perplexity.h"
#include "recipe/check.h"
#include "tests/train/ranks_run.h"
#include "train/step.h"
#include "train/train_state.h"

namespace tern::train {
namespace {

using recipe::Sharding;

// Widths of 96 and 192, so that 2, 3 and 4 ranks have whole heads, and no cut of q, k and v falls
// on the beginning of a block of the scale.
recipe::Recipe TensorRecipe(int64_t tensor, Sharding shard = Sharding::kNone) {
  recipe::Recipe recipe = RanksRecipe(shard);
  recipe.model.hidden_size = 96;
  recipe.model.intermediate_size = 192;
  recipe.model.num_heads = recipe.model.num_kv_heads = 12;
  recipe.model.sub_norms = SubNorms::kOutputs;
  recipe.parallel.tensor = tensor;
  return recipe;
}

// A learning rate at which rounding moves the losses of 50 steps little.
recipe::TrainStage LossStage() {
  recipe::TrainStage stage = RanksStage(50);
  for (double* rate :
       {&stage.schedule.peak_lr, &stage.schedule.second_lr, &stage.schedule.final_lr})
    *rate /= 4;
  return stage;
}

recipe::Recipe LossRecipe(int64_t tensor, Sharding shard = Sharding::kNone) {
  recipe::Recipe recipe = RanksRecipe(shard);
  recipe.model.num_kv_heads = 4;
  recipe.parallel.tensor = tensor;
  return recipe;
}

struct Shape {
  const char* name;
  void (*apply)(ModelConfig*);
};

const Shape kShapes[] = {
    {"sub-norms", [](ModelConfig*) {}},
    {"plain", [](ModelConfig* m) { m->sub_norms = SubNorms::kNone; }},
    {"a norm for each layer", [](ModelConfig* m) { m->sub_norms = SubNorms::kEveryLinear; }},
    {"no pre-norms", [](ModelConfig* m) { m->sub_norms = SubNorms::kEveryLinearOnly; }},
    {"QK norm and bias, grouped queries",
     [](ModelConfig* m) {
       m->sub_norms = SubNorms::kNone;
       m->qk_norm = m->qkv_bias = true;
       m->num_heads = 24;
       m->head_dim = 8;
     }},
};

class TensorTest : public LossTest {
 protected:
  // What `ranks` threads make of a state that they load from the newest checkpoint of `name`.
  void Load(const recipe::Recipe& recipe, const std::string& name, int ranks,
            const std::function<void(TrainState&, parallel::Group*)>& work) {
    const auto found = checkpoint::FindNewestValid(folder_ / (name + "/train"));
    const auto run = [&](parallel::Group* group) {
      TrainState state(recipe, RanksStage(4), group);
      LoadTrainState(checkpoint::CheckpointReader(found.path.value()), &state);
      work(state, group);
    };
    if (ranks == 1) return run(nullptr);
    parallel::RunRankThreads(ranks, [&](parallel::Group& group) { run(&group); });
  }

  static at::Tensor Hidden(TrainState& state, const model::DecoderInput& input) {
    const at::NoGradGuard no_grad;
    state.sharding.PrepareForward();
    model::ForwardOptions options;
    options.source = state.sharding.source();
    options.tensor = state.sharding.tensor();
    return state.decoder.Hidden(input, options);
  }
};

const model::DecoderInput kInput{at::arange(64).view({4, 16}), {}, {}};

TEST_F(TensorTest, ForwardHasTheBitsOfOneRank) {
  for (const Shape& shape : kShapes) {
    recipe::Recipe recipe = TensorRecipe(1);
    shape.apply(&recipe.model);
    Train(recipe, RanksStage(4), 1, shape.name);
    at::Tensor want;
    Load(recipe, shape.name, 1,
         [&](TrainState& state, parallel::Group*) { want = Hidden(state, kInput); });
    for (const int ranks : {2, 3, 4}) {
      recipe.parallel.tensor = ranks;
      Load(recipe, shape.name, ranks, [&](TrainState& state, parallel::Group* group) {
        EXPECT_TRUE(at::equal(Hidden(state, kInput), want))
            << shape.name << ", rank " << group->rank() << " of " << ranks;
      });
    }
    recipe.parallel.tensor = 1;
  }
}

// Float products are sums in another order. Of the last norm's outputs, about 1 in size: each of
// the four products that are cut (o and down of two layers) adds rounding of at most K u of its
// terms' magnitudes, which add up to a few times the output itself; K is 192 at most.
TEST_F(TensorTest, DenseForwardDiffersByRoundingOnly) {
  for (const SubNorms sub_norms : {SubNorms::kNone, SubNorms::kOutputs, SubNorms::kEveryLinear}) {
    recipe::Recipe recipe = TensorRecipe(1);
    recipe.model.linear = LinearKind::kDense;
    recipe.model.sub_norms = sub_norms;
    const std::string name = StrCat("dense_", ToString(sub_norms));
    Train(recipe, RanksStage(4), 1, name);
    at::Tensor want;
    Load(recipe, name, 1,
         [&](TrainState& state, parallel::Group*) { want = Hidden(state, kInput); });
    recipe.parallel.tensor = 3;
    const double tolerance = 4 * 192 * std::exp2(-24) * 4;
    Load(recipe, name, 3, [&](TrainState& state, parallel::Group*) {
      EXPECT_LE((Hidden(state, kInput) - want).abs().max().item<double>(), tolerance);
    });
  }
}

TEST_F(TensorTest, FiftyStepsAgree) {
  CheckLosses(LossRecipe(1), LossStage(),
              {{"two", 2, LossRecipe(2)},
               {"two_by_two", 4, LossRecipe(2)},
               {"zero1", 4, LossRecipe(2, Sharding::kZero1)}});
}

class SlowTensorTest : public TensorTest {};

TEST_F(SlowTensorTest, FiftyStepsAgreeForAnyRanksAndShapes) {
  CheckLosses(LossRecipe(1), LossStage(),
              {{"four", 4, LossRecipe(4)}, {"zero2", 6, LossRecipe(2, Sharding::kZero2)}});
}

TEST_F(SlowTensorTest, FiftyStepsWithQkNormAndBiasAgree) {
  recipe::Recipe qk_norm = LossRecipe(1), cut = LossRecipe(2);
  for (recipe::Recipe* recipe : {&qk_norm, &cut}) {
    recipe->model.sub_norms = SubNorms::kNone;
    recipe->model.qk_norm = recipe->model.qkv_bias = true;
  }
  CheckLosses(qk_norm, LossStage(), {{"qk_norm", 2, cut}});
}

TEST_F(SlowTensorTest, FiftyStepsOfDenseLayersAgree) {
  recipe::Recipe one = LossRecipe(1), cut = LossRecipe(2);
  one.model.linear = cut.model.linear = LinearKind::kDense;
  CheckLosses(one, LossStage(), {{"dense", 2, cut}, {"dense_by_two", 4, cut}},
              /*exact_start=*/false);
}

// Whole tensors in the file, whoever wrote it; loading and saving without a step is the identity.
TEST_F(TensorTest, CheckpointsAreReadByAnyNumberOfRanks) {
  recipe::Recipe biased = TensorRecipe(1);
  kShapes[2].apply(&biased.model);
  Train(biased, RanksStage(4), 1, "run");
  const auto bits = Bits("run");
  struct Turn {
    int ranks;
    int64_t tensor;
    Sharding shard;
  };
  for (const Turn& turn :
       {Turn{2, 2, Sharding::kNone}, Turn{1, 1, Sharding::kNone}, Turn{6, 3, Sharding::kZero1},
        Turn{3, 1, Sharding::kZero3}, Turn{4, 2, Sharding::kZero2}, Turn{4, 4, Sharding::kNone},
        Turn{1, 1, Sharding::kNone}}) {
    recipe::Recipe recipe = biased;
    recipe.parallel.tensor = turn.tensor;
    recipe.parallel.shard = turn.shard;
    Load(recipe, "run", turn.ranks, [&](TrainState& state, parallel::Group* group) {
      state.step += 1;
      SaveOptions options;
      options.folder = folder_ / "run/train";
      options.group = group;
      Saving saving(state, options);
      saving.Write();
      saving.Finish();
    });
    EXPECT_TRUE(Bits("run") == bits) << turn.ranks << " ranks, tensor " << turn.tensor;
  }
}

// Values without a checkpoint are one rank's, too, and each rank holds its slices only.
TEST_F(TensorTest, StartsFromTheValuesOfOneRank) {
  model::Decoder whole(TensorRecipe(1).model);
  whole.Initialize(42);
  parallel::RunRankThreads(3, [&](parallel::Group& group) {
    TrainState state(TensorRecipe(3), RanksStage(4), &group);
    state.decoder.Initialize(42);
    const at::NoGradGuard no_grad;
    const at::Tensor& q = state.decoder.Get("model.layers.1.self_attn.q_proj.weight");
    const at::Tensor& down = state.decoder.Get("model.layers.1.mlp.down_proj.weight");
    EXPECT_TRUE(at::equal(
        q, whole.Get("model.layers.1.self_attn.q_proj.weight").narrow(0, 32 * group.rank(), 32)));
    EXPECT_TRUE(at::equal(
        down, whole.Get("model.layers.1.mlp.down_proj.weight").narrow(1, 64 * group.rank(), 64)));
    const at::Tensor initialized = down.clone();
    down.zero_();
    state.decoder.CopyFrom(whole);
    EXPECT_TRUE(at::equal(down, initialized));
    EXPECT_EQ(state.optimizer.exp_avg()[1].sizes(), state.decoder.parameters()[1].value.sizes());
  });
}

TEST_F(TensorTest, SameRanksMeanTheSameBitsAcrossAResume) {
  recipe::TrainStage part = RanksStage(6);
  part.schedule.kind = recipe::ScheduleKind::kConstant;  // What else depends on the last step
  part.optimizer.weight_decay_until = 1;
  part.checkpoint_async = true;
  Train(TensorRecipe(2), part, 4, "whole");
  part.steps = 3;
  Train(TensorRecipe(2), part, 4, "parts");
  part.steps = 6;
  Train(TensorRecipe(2), part, 4, "parts");
  EXPECT_TRUE(Bits("parts") == Bits("whole"));
}

TEST_F(TensorTest, RunGoesOnWithOtherRanks) {
  recipe::TrainStage part = RanksStage(9);
  Train(TensorRecipe(1), part, 1, "one");
  part.steps = 3;
  Train(TensorRecipe(2), part, 2, "turns");
  part.steps = 6;
  Train(TensorRecipe(1), part, 1, "turns");
  part.steps = 9;
  Train(TensorRecipe(2, Sharding::kZero1), part, 4, "turns");
  EXPECT_EQ(Hashes("turns"), Hashes("one"));
  EXPECT_EQ(Series("turns", "step"), Series("one", "step"));
}

// Of what is not cut, all ranks of a tensor group have the same gradient, bit for bit; the whole
// gradient's norm is that of one rank but for rounding: fp32 norms of each part, 2^-24 each, of
// sums whose order differs.
TEST_F(TensorTest, GradientsOfOneRank) {
  recipe::Recipe recipe = TensorRecipe(1);
  kShapes[2].apply(&recipe.model);
  Train(recipe, RanksStage(4), 1, "run");
  const data::Batch batch = data::BatchOfStep(tokens_, {16, 12, 42}, 3);
  const auto gradients = [&](TrainState& state) {
    StepOptions options;
    options.micro_batch = 3;
    options.rank = state.sharding.data_rank();
    options.ranks = state.sharding.data_ranks();
    options.sharding = &state.sharding;
    options.checkpoint_blocks = true;
    ForwardBackward(state.decoder, batch, options);
    return state.sharding.SumSquares(state.optimizer.GradSquares());
  };
  std::vector<double> want;
  Load(recipe, "run", 1, [&](TrainState& state, parallel::Group*) { want = gradients(state); });
  recipe.parallel.tensor = 2;
  Load(recipe, "run", 4, [&](TrainState& state, parallel::Group* group) {
    const std::vector<double> got = gradients(state);
    std::string whole, cut;
    for (size_t i = 0; i < got.size(); ++i) {
      const model::Parameter& parameter = state.decoder.parameters()[i];
      EXPECT_NEAR(std::sqrt(got[i]), std::sqrt(want[i]), 1e-5 * std::sqrt(want[i]))
          << parameter.spec.name;
      const at::Tensor grad = parameter.value.grad().contiguous();
      (grad.sizes() == parameter.spec.shape ? whole : cut)
          .append(static_cast<const char*>(grad.const_data_ptr()), grad.nbytes());
    }
    const std::vector<std::string> wholes = group->GatherTexts(Sha256Hex(whole)),
                                   cuts = group->GatherTexts(Sha256Hex(cut));
    for (const std::string& other : wholes) EXPECT_EQ(other, wholes[0]);
    EXPECT_EQ(cuts[0], cuts[2]) << "ranks 0 and 2 hold the same slices";
    EXPECT_NE(cuts[0], cuts[1]);
  });
}

TEST_F(TensorTest, HealthIsThatOfTheWholeModel) {
  recipe::TrainStage stage = RanksStage(2);
  stage.health_every = 1;
  Train(TensorRecipe(1), stage, 1, "one");
  Train(TensorRecipe(2), stage, 4, "four");
  const auto health = [&](const char* name) {
    return ReadMetrics(folder_ / (std::string(name) + "/metrics.jsonl")).at(0).values.at("health");
  };
  const nlohmann::json want = health("one"), got = health("four");
  EXPECT_EQ(got.at("clip"), want.at("clip"));
  for (const char* kind : {"q_proj", "o_proj", "up_proj", "down_proj"}) {
    // Before the update codes and scale are exact; after it a rounding border may be crossed.
    for (const char* share : {"zeros", "flips"}) {
      EXPECT_NEAR(got.at(kind).at(share).get<double>(), want.at(kind).at(share).get<double>(), 1e-3)
          << kind;
    }
    EXPECT_NEAR(got.at(kind).at("grad_norm").get<double>(),
                want.at(kind).at("grad_norm").get<double>(), 1e-6);
  }
}

TEST_F(TensorTest, EvaluationHasTheBitsOfOneRank) {
  recipe::Recipe recipe = TensorRecipe(1);
  Train(recipe, RanksStage(4), 1, "run");
  eval::PerplexityOptions options;
  options.split = data::Split::kTrain;
  options.sequence_length = 16;
  options.batch = 4;
  options.packing = data::Packing::kDocuments;
  eval::PerplexityResult want;
  Load(recipe, "run", 1, [&](TrainState& state, parallel::Group*) {
    want = eval::Perplexity(state.decoder, tokens_, options);
  });
  recipe.parallel.tensor = 2;
  Load(recipe, "run", 4, [&](TrainState& state, parallel::Group*) {
    eval::PerplexityOptions mine = options;
    state.sharding.PrepareForward();
    mine.group = state.sharding.data_group();
    mine.source = state.sharding.source();
    mine.tensor = state.sharding.tensor();
    EXPECT_EQ(eval::Perplexity(state.decoder, tokens_, mine).loss, want.loss);
  });
}

TEST_F(TensorTest, RanksMustDivide) {
  for (const int ranks : {1, 3}) {
    try {
      Train(TensorRecipe(2), RanksStage(2), ranks, "none");
      ADD_FAILURE() << ranks;
    } catch (const RecipeError& error) {
      EXPECT_NE(std::string(error.what()).find("parallel.tensor: found 2, which does not divide"),
                std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace tern::train
