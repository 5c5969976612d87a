// Which parameters a stage leaves as they are.
#include "recipe/frozen.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tern::recipe {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 64;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_layers = 2;
  config.num_heads = config.num_kv_heads = 2;
  config.linear = LinearKind::kDense;
  config.sub_norms = SubNorms::kNone;
  config.tied_head = false;
  return config;
}

std::vector<std::string> Frozen(const TrainStage& stage, const ModelConfig& model) {
  std::vector<std::string> names;
  const std::vector<ParameterSpec> table = ParameterTable(model);
  const std::vector<bool> frozen = FrozenParameters(stage, model);
  EXPECT_EQ(frozen.size(), table.size());
  for (size_t i = 0; i < table.size(); ++i)
    if (frozen[i]) names.push_back(table[i].name);
  return names;
}

std::vector<std::string> Frozen(const std::vector<std::string>& patterns) {
  TrainStage stage;
  stage.freeze = patterns;
  return Frozen(stage, Config());
}

std::string Refused(const TrainStage& stage, const ModelConfig& model) {
  try {
    FrozenParameters(stage, model);
  } catch (const RecipeError& error) {
    return error.what();
  }
  return "";
}

TEST(FrozenTest, PatternsMatchNamesOrTheirLastPart) {
  EXPECT_TRUE(Frozen(std::vector<std::string>{}).empty());
  EXPECT_EQ(Frozen({"model.embed_tokens"}), std::vector<std::string>{"model.embed_tokens.weight"});
  const std::vector<std::string> down = {"model.layers.0.mlp.down_proj.weight",
                                         "model.layers.1.mlp.down_proj.weight"};
  EXPECT_EQ(Frozen({"down_proj"}), down);
  EXPECT_EQ(Frozen({"down_proj", "model.layers.1.mlp.down*"}), down);
  EXPECT_EQ(Frozen({"*norm"}).size(), 5u);
  EXPECT_EQ(Frozen({"model.layers.0.*"}).size(), 9u);
}

TEST(FrozenTest, BiasesGoWithTheirMatrices) {
  ModelConfig model = Config();
  model.qkv_bias = true;
  TrainStage stage;
  stage.freeze = {"model.layers.0.self_attn.q_proj"};
  EXPECT_EQ(Frozen(stage, model),
            (std::vector<std::string>{"model.layers.0.self_attn.q_proj.weight",
                                      "model.layers.0.self_attn.q_proj.bias"}));
}

TEST(FrozenTest, AdaptersFreezeTheWholeModel) {
  TrainStage stage;
  stage.lora.rank = 4;
  EXPECT_EQ(Frozen(stage, Config()).size(), ParameterTable(Config()).size());
}

TEST(FrozenTest, RefusesWhatMatchesNothingOrLeavesNothing) {
  TrainStage stage;
  stage.freeze = {"*norm", "nothing"};
  EXPECT_NE(Refused(stage, Config()).find("found \"nothing\", which matches no parameter"),
            std::string::npos);
  ModelConfig tied = Config();
  tied.tied_head = true;
  stage.freeze = {"lm_head"};
  EXPECT_EQ(Refused(stage, Config()), "");
  EXPECT_NE(Refused(stage, tied).find("the head is the embedding's"), std::string::npos);
  stage.freeze = {"*"};
  EXPECT_NE(Refused(stage, Config()).find("match every parameter"), std::string::npos);
  // Learned scales are left to train.
  QuantizeRule rule;
  rule.name = "body";
  rule.weights = WeightQuantizer::kLsq4;
  stage.quantize.rules = {rule};
  EXPECT_EQ(Refused(stage, Config()), "");
  stage.quantize.rules[0].weights = WeightQuantizer::kInt4;
  EXPECT_NE(Refused(stage, Config()).find("match every parameter"), std::string::npos);
}

TEST(FrozenTest, CountsWeights) {
  TrainStage stage;
  EXPECT_EQ(FrozenWeights(stage, Config()), 0);
  EXPECT_EQ(DescribeFrozen(stage, Config()), "");
  stage.freeze = {"down_proj"};
  EXPECT_EQ(FrozenWeights(stage, Config()), 2 * 32 * 64);
  EXPECT_EQ(DescribeFrozen(stage, Config()),
            "2 of 21 parameters stay as they are: 4.10 k of 24.7 k weights");
}

}  // namespace
}  // namespace tern::recipe
