// What a training keeps in memory, worked out by hand for a small model.
#include "plan/plan.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>

#include "base/error.h"

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
  recipe.model.sub_norms = SubNorms::kNone;
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

// 1024 tokens are 16 sequences of 64.
TEST(PlanTest, AMicroBatchThatDoesNotDivideIsToldWhatWould) {
  recipe::TrainStage stage = Stage();
  stage.micro_batch = 4;
  EXPECT_EQ(MicroBatch(stage, 4), 4);
  for (const auto& [ranks, said] : std::map<int64_t, std::string>{
           {8, "try train.micro_batch=2"}, {16, "try train.micro_batch=1"}}) {
    try {
      MicroBatch(stage, ranks);
      ADD_FAILURE() << ranks;
    } catch (const RecipeError& error) {
      EXPECT_NE(std::string(error.what()).find(said), std::string::npos) << error.what();
    }
  }
}

recipe::Recipe Taught(recipe::Runtime runtime) {
  recipe::Recipe recipe = Recipe();
  recipe.teacher.from = "a teacher";
  recipe.teacher_runtime = runtime;
  recipe.teacher.config = recipe.model;
  recipe.teacher.config.intermediate_size = 1 << 16;
  recipe.teacher.weight_bytes = 5'000'000;
  recipe.teacher.weight_types = "Q4_1";
  return recipe;
}

// A teacher takes 4 bytes a weight, or what the engine keeps of its file and its buffers: 256 rows
// of a pass and the keys and values of one layer. Those are not libtorch's tensors.
TEST(PlanTest, ATeacherByTheEngineTakesItsFile) {
  recipe::TrainStage stage = Stage();
  stage.losses.forward_kl.weight.first = 1;
  const TrainPlan floats = PlanTraining(Taught(recipe::Runtime::kLibtorch), stage, 0),
                  stored = PlanTraining(Taught(recipe::Runtime::kEngine), stage, 0);
  const auto bytes = [](const TrainPlan& plan, const std::string& what) {
    for (const MemoryLine& line : plan.memory)
      if (line.what == what) return line.bytes;
    return 0.0;
  };
  // Two blocks of 3 x 64 x 65536 weights of the FFN, the rest of both as the student's.
  const double teacher = 4 * (kParameters + 2 * 3 * 64 * (65536 - 128));
  EXPECT_EQ(bytes(floats, "the teacher (fp32)"), teacher);
  EXPECT_EQ(bytes(stored, "the teacher (fp32)"), 0);
  EXPECT_EQ(bytes(stored, "the teacher (Q4_1, engine)"), 5e6);
  const double buffers = bytes(stored, "the teacher's cache and buffers");
  EXPECT_GE(buffers, 256 * 4 * 2 * 65536);  // Gate and up
  EXPECT_EQ(stored.memory_bytes - floats.memory_bytes, 5e6 + buffers - teacher);
  EXPECT_EQ(stored.tensor_bytes, floats.tensor_bytes - teacher);
  EXPECT_EQ(bytes(stored, "what the teacher says"), bytes(floats, "what the teacher says"));

  // Documents may be of one token, each with a page of 32: 2 heads of 16, keys and values.
  recipe::Recipe documents = Taught(recipe::Runtime::kEngine);
  documents.data.packing = recipe::Packing::kDocuments;
  EXPECT_EQ(bytes(PlanTraining(documents, stage, 0), "the teacher's cache and buffers") - buffers,
            (256 - 256 / 64) * 2 * 2 * 16 * 32 * 4);
}

TEST(PlanTest, ABudgetThatFloatsDoNotFitIsToldOfTheEngine) {
  recipe::TrainStage stage = Stage();
  stage.losses.forward_kl.weight.first = 1;
  recipe::Recipe recipe = Taught(recipe::Runtime::kEngine);
  const TrainPlan stored = PlanTraining(recipe, stage, 0);
  recipe.budget.memory_gib = 1.001 * stored.memory_bytes / (1 << 30);
  CheckBudget(recipe, stored);
  recipe.budget.memory_gib = 0.999 * stored.memory_bytes / (1 << 30);
  EXPECT_THROW(CheckBudget(recipe, stored), RecipeError);

  recipe = Taught(recipe::Runtime::kLibtorch);
  const TrainPlan floats = PlanTraining(recipe, stage, 0);
  recipe.budget.memory_gib = 0.999 * floats.memory_bytes / (1 << 30);
  try {
    CheckBudget(recipe, floats);
    ADD_FAILURE();
  } catch (const RecipeError& error) {
    EXPECT_NE(std::string(error.what()).find("teacher.runtime: engine"), std::string::npos)
        << error.what();
  }
}

// Of a plan of 0.4 machines two fit into one, three do not.
TEST(PlanTest, RanksOfAMachineShareItsMemory) {
  TrainPlan plan = PlanTraining(Recipe(), Stage(), 0);
  plan.memory_bytes = 0.4 * static_cast<double>(sysconf(_SC_PHYS_PAGES)) *
                      static_cast<double>(sysconf(_SC_PAGE_SIZE));
  plan.ranks = 3;
  CheckBudget(Recipe(), plan);
  CheckBudget(Recipe(), plan, {.sharing = 2});
  try {
    CheckBudget(Recipe(), plan, {.sharing = 3});
    ADD_FAILURE();
  } catch (const ResourceError& error) {
    const std::string said = error.what();
    EXPECT_NE(said.find("for each of its 3 ranks"), std::string::npos) << said;
    EXPECT_NE(said.find("parallel.shard"), std::string::npos) << said;
  }
}

// Of 10 GB of which 3 stay in host memory, 7 are the GPU's.
TEST(PlanTest, AGpuHasItsOwnMemory) {
  TrainPlan plan = PlanTraining(Recipe(), Stage(), 0);
  plan.memory_bytes = 10e9;
  plan.host_bytes = 3e9;
  CheckBudget(Recipe(), plan, {.sharing = 1000, .gpu_bytes = 7'000'000'000});
  try {
    CheckBudget(Recipe(), plan, {.gpu_bytes = 6'999'999'999});
    ADD_FAILURE();
  } catch (const ResourceError& error) {
    EXPECT_NE(std::string(error.what()).find("the GPU has"), std::string::npos) << error.what();
  }
  recipe::Recipe recipe = Recipe();
  recipe.budget.memory_gib = 6;
  EXPECT_THROW(CheckBudget(recipe, plan, {.gpu_bytes = 8'000'000'000}), RecipeError);
}

TEST(PlanTest, FrozenParametersHaveNoGradientsAndMoments) {
  recipe::TrainStage stage = Stage();
  stage.freeze = {"model.embed_tokens"};
  constexpr double kTrained = kParameters - 512 * 64;
  const auto memory = Memory(stage);
  EXPECT_EQ(memory.at("parameters (fp32)"), 4 * kParameters);
  EXPECT_EQ(memory.at("gradients (fp32)"), 4 * kTrained);
  EXPECT_EQ(memory.at("AdamW moments (fp32)"), 8 * kTrained);
  EXPECT_EQ(PlanTraining(Recipe(), stage, 0).checkpoint_bytes, 4 * (kParameters + 2 * kTrained));
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

// Two losses and what they share, of a micro-batch of 8 x 64 rows of 64.
TEST(PlanTest, MeasuredGradientsAreKept) {
  recipe::TrainStage stage = Stage();
  EXPECT_FALSE(Memory(stage).contains("gradients of single losses"));
  stage.losses.forward_kl.weight.first = 1;
  stage.losses.log_gradients_every = 10;
  EXPECT_EQ(Memory(stage).at("gradients of single losses"), 4 * 512 * 64 * 3);
}

// A quarter of the steps, 64 tokens of which 16 are the prompt: 49 passes, the last of which has
// no target behind it but is the last token's. A forward pass is a third of a step's work.
TEST(PlanTest, GeneratedTextCostsPassesAndACache) {
  recipe::TrainStage stage = Stage();
  stage.steps = 100;
  const TrainPlan plain = PlanTraining(Recipe(), stage, 1e9);
  stage.losses.generated.by = recipe::GeneratedBy::kStudent;
  stage.losses.generated.share = 0.25;
  stage.losses.generated.prompt_tokens = 16;
  const TrainPlan plan = PlanTraining(Recipe(), stage, 1e9);
  EXPECT_EQ(plan.written_steps, 25);
  EXPECT_EQ(plan.written_tokens, 49);
  EXPECT_NEAR(plan.flops, plain.flops * (1 + 0.25 / 3), 1e-9 * plan.flops);
  EXPECT_GT(plan.seconds, plain.seconds * (1 + 0.25 / 3));
  // 2 blocks, 2 heads of 16, keys and values of 1,024 tokens.
  EXPECT_EQ(Memory(stage).at("keys and values of what is written"), 2 * 4 * 1024 * 2 * 2 * 16);
  EXPECT_NE(FormatPlan(Recipe(), stage, plan).find("25 % of the steps, by the student"),
            std::string::npos);
  stage.losses.generated.tokens = 8;
  EXPECT_EQ(PlanTraining(Recipe(), stage, 1e9).written_tokens, 8);
  // Two ranks write half of the sequences each.
  double kept = 0;
  for (const MemoryLine& line : PlanTraining(Recipe(), stage, 1e9, {.ranks = 2}).memory)
    if (line.what == "keys and values of what is written") kept = line.bytes;
  EXPECT_EQ(kept, 2 * 4 * 512 * 2 * 2 * 16);
}

}  // namespace
}  // namespace tern::plan
