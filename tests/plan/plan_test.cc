// What a training keeps in memory, worked out by hand for a small model.
#include "plan/plan.h"

#include <gtest/gtest.h>

#include <map>

namespace tern::plan {
namespace {

recipe::Recipe Recipe() {
  recipe::Recipe recipe;
  recipe.model.vocab_size = 512;
  recipe.model.hidden_size = 64;
  recipe.model.intermediate_size = 128;
  recipe.model.num_layers = 2;
  recipe.model.num_heads = 4;
  recipe.model.num_kv_heads = 2;
  recipe.model.sub_norms = false;
  recipe.model.tied_head = true;
  return recipe;
}

recipe::TrainStage Stage() {
  recipe::TrainStage stage;
  stage.tokens_per_step = 1024;
  stage.sequence_length = 64;
  return stage;
}

std::map<std::string, double> Memory(const recipe::TrainStage& stage) {
  std::map<std::string, double> memory;
  for (const MemoryLine& line : PlanTraining(Recipe(), stage, 0).memory)
    memory[line.what] = line.bytes;
  return memory;
}

// A block has 64 x (64 + 32 + 32 + 64) and 3 x 64 x 128 weights and 2 norms; the embedding 512
// x 64.
constexpr double kParameters = 2 * (64 * 192 + 3 * 64 * 128 + 128) + 512 * 64 + 64;

TEST(PlanTest, AllIsTrained) {
  const auto memory = Memory(Stage());
  EXPECT_EQ(memory.at("parameters (fp32)"), 4 * kParameters);
  EXPECT_EQ(memory.at("gradients (fp32)"), 4 * kParameters);
  EXPECT_EQ(memory.at("AdamW moments (fp32)"), 8 * kParameters);
  EXPECT_FALSE(memory.contains("copy for the checkpoint"));
}

TEST(PlanTest, AdaptersAreTrainedInsteadOfTheModel) {
  recipe::TrainStage stage = Stage();
  stage.lora.rank = 4;
  // q, o: 128; k, v: 96; gate, up, down: 192 rows and columns.
  constexpr double kAdapters = 4 * 2 * (2 * 128 + 2 * 96 + 3 * 192);
  const auto memory = Memory(stage);
  EXPECT_EQ(memory.at("parameters (fp32)"), 4 * (kParameters + kAdapters));
  EXPECT_EQ(memory.at("gradients (fp32)"), 4 * kAdapters);
  EXPECT_EQ(memory.at("AdamW moments (fp32)"), 8 * kAdapters);
}

TEST(PlanTest, AnAsynchronousCheckpointIsACopy) {
  recipe::TrainStage stage = Stage();
  stage.checkpoint_async = true;
  EXPECT_EQ(Memory(stage).at("copy for the checkpoint"), 12 * kParameters);
}

}  // namespace
}  // namespace tern::plan
