// Every recipe and part of the repository: they load, pass the rules, stay equal when resolved, and
// have the published numbers (BitNet b1.58: arXiv 2402.17764, 2411.04965; 2B-4T: arXiv 2504.12285).
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "recipe/check.h"
#include "recipe/load.h"
#include "recipe/schema.h"
#include "tests/recipe/recipe_file.h"

namespace tern::recipe {
namespace {

namespace fs = std::filesystem;

const std::string kRoot = TERN_SOURCE_DIR;

std::vector<std::string> YamlFiles(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(kRoot + "/" + folder)) {
    if (entry.path().extension() == ".yaml") files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

LoadedRecipe LoadNamed(const std::string& name) {
  return LoadRecipe(kRoot + "/recipes/" + name + ".yaml", {});
}

TEST(RecipesTest, AllLoadPassTheRulesAndSurviveResolving) {
  const auto files = YamlFiles("recipes");
  EXPECT_GE(files.size(), 6u);
  for (const std::string& file : files) {
    SCOPED_TRACE(file);
    const LoadedRecipe loaded = LoadRecipe(file, {});
    EXPECT_TRUE(CheckRecipe(loaded).empty());
    EXPECT_EQ(loaded.recipe.name, fs::path(file).stem());
    const LoadedRecipe again = RecipeFile(ResolvedYaml(loaded)).Load();
    EXPECT_EQ(again.recipe.model, loaded.recipe.model);
    EXPECT_EQ(again.recipe.stages.size(), loaded.recipe.stages.size());
  }
}

TEST(RecipesTest, EachOpensWithWhatForWhomAndCost) {
  std::vector<std::string> files = YamlFiles("recipes");
  for (const std::string& file : YamlFiles("configs/model")) files.push_back(file);
  for (const std::string& file : files) {
    std::ifstream in(file);
    std::string head, line;
    while (std::getline(in, line) && line.starts_with("#")) head += line + "\n";
    for (const char* part : {"# What: ", "For whom: ", "Cost: "}) {
      EXPECT_NE(head.find(part), std::string::npos) << file << " does not say " << part;
    }
  }
}

// Each part in a recipe that names nothing else of its kind.
TEST(RecipesTest, EveryPartLoads) {
  for (const char* kind : {"model", "data", "train"}) {
    const auto files = YamlFiles(std::string("configs/") + kind);
    EXPECT_FALSE(files.empty());
    for (const std::string& file : files) {
      const std::string use = StrCat(kind, ".use=", kind, "/", fs::path(file).stem().string());
      EXPECT_NO_THROW(LoadRecipe(kRoot + "/recipes/quickstart.yaml", {use})) << use;
    }
  }
}

struct Published {
  const char* name;
  int64_t hidden, ffn, heads, layers;
  double first, second;
  bool tq2;  // Holds TQ2_0: every width is a multiple of 256
};

TEST(RecipesTest, PublishedSizesAndRates) {
  const Published table[] = {{"bitnet_700m_100b", 1536, 4096, 24, 24, 1.5e-3, 1e-3, true},
                             {"bitnet_1_3b_100b", 2048, 5460, 32, 24, 1.2e-3, 8e-4, false},
                             {"bitnet_3b_100b", 3200, 8640, 32, 26, 1.2e-3, 6.4e-4, false}};
  for (const Published& want : table) {
    SCOPED_TRACE(want.name);
    const Recipe r = LoadNamed(want.name).recipe;
    EXPECT_EQ(r.model.hidden_size, want.hidden);
    EXPECT_EQ(r.model.intermediate_size, want.ffn);
    EXPECT_EQ(r.model.num_heads, want.heads);
    EXPECT_EQ(r.model.num_kv_heads, want.heads);
    EXPECT_EQ(r.model.num_layers, want.layers);
    const TrainStage& t = std::get<TrainStage>(r.stages[0]);
    EXPECT_EQ(t.schedule.peak_lr, want.first);
    EXPECT_EQ(t.schedule.second_lr, want.second);
    EXPECT_EQ(t.schedule.warmup_steps, 375);
    EXPECT_EQ(t.schedule.switch_at, 0.5);
    EXPECT_EQ(t.tokens_per_step, 1 << 20);
    EXPECT_EQ(t.sequence_length, 2048);
    EXPECT_NEAR(static_cast<double>(t.steps) * (1 << 20), 100e9, 1 << 20);
    EXPECT_EQ(t.optimizer.beta2, 0.95);
    EXPECT_EQ(t.optimizer.weight_decay, 0.1);
    EXPECT_EQ(t.optimizer.weight_decay_until, 0.5);
    EXPECT_EQ(WhyFormatCannotHold(r.model, "gguf/tq2_0").empty(), want.tq2);
    EXPECT_EQ(WhyFormatCannotHold(r.model, "hf/bitnet"), "");
  }
}

TEST(RecipesTest, ThePublishedTwoBillionModelHasItsParameters) {
  const Recipe r = LoadNamed("bitnet_2b4t").recipe;
  EXPECT_EQ(CountParameters(r.model), 2412820480);
  EXPECT_EQ(r.model.activation, Activation::kRelu2);
  EXPECT_EQ(r.model.rope_theta, 500000.0f);
}

TEST(RecipesTest, QuickstartIsTheMainJob) {
  const Recipe r = LoadNamed("quickstart").recipe;
  const TrainStage& t = std::get<TrainStage>(r.stages[0]);
  EXPECT_EQ(t.steps, 400);
  EXPECT_EQ(t.tokens_per_step, 4096);
  EXPECT_EQ(t.precision, Precision::kBf16);
  EXPECT_EQ(r.model.vocab_size, 2048);
  EXPECT_EQ(r.expect.validation_perplexity_below, 110);
  EXPECT_EQ(r.budget.memory_gib, 4);
  std::string kinds;
  for (const Stage& stage : r.stages) kinds += StrCat(KindOf(stage), " ");
  EXPECT_EQ(kinds, "train eval export verify generate report ");
  // The twin differs in the linear layers and the schedule only.
  const Recipe dense = LoadNamed("quickstart_dense").recipe;
  ModelConfig model = r.model;
  model.linear = LinearKind::kDense;
  EXPECT_EQ(dense.model, model);
  EXPECT_EQ(std::get<TrainStage>(dense.stages[0]).steps, t.steps);
  EXPECT_EQ(std::get<TrainStage>(dense.stages[0]).tokens_per_step, t.tokens_per_step);
}

}  // namespace
}  // namespace tern::recipe
