// What is derived from the schema: explanations, the resolved recipe (reading it again gives an
// equal recipe), the reference page.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "recipe/explain.h"
#include "recipe/list_visitor.h"
#include "recipe/load.h"
#include "tests/recipe/recipe_file.h"

namespace tern::recipe {
namespace {

// Every key with its value, in order: two recipes are equal when these are.
std::string Flat(const Recipe& recipe) {
  std::string flat;
  for (const ListedField& f : ListRecipe(recipe)) flat += StrCat(f.path, "=", f.value, "\n");
  for (const Stage& stage : recipe.stages) {
    flat += StrCat("- ", KindOf(stage), "\n");
    for (const ListedField& f : ListStage(stage)) flat += StrCat(f.path, "=", f.value, "\n");
  }
  return flat;
}

LoadedRecipe Reloaded(const LoadedRecipe& loaded) {
  return RecipeFile(ResolvedYaml(loaded)).Load();
}

TEST(ResolvedTest, ReadingItAgainGivesAnEqualRecipe) {
  const LoadedRecipe loaded =
      RecipeFile(std::string(kGoodRecipe) + "  - train: {id: second}\n  - report: {}\n")
          .Load({"train.optimizer.epsilon=1e-9", "model.norm_eps=3.3e-6", "second.precision=fp16",
                 "model.rope_theta=500000", "seed=9000000000000000", "data.packing=documents",
                 "train.keep_best=false", "generate.temperature=0.1"});
  EXPECT_EQ(Flat(Reloaded(loaded).recipe), Flat(loaded.recipe));
  EXPECT_EQ(Reloaded(loaded).recipe.model, loaded.recipe.model);
}

// Texts that YAML would take for something else, or that end a line.
TEST(ResolvedTest, AnyTextSurvives) {
  const std::string texts[] = {"",           "true",     "3",    "~",
                               "a: b # c",   "- x",      "\"q'", "\\n",
                               "a\n\tb\r\n", "\x01\x7f", "{}",   "K\xc3\xa4se \xe2\x80\xa8"};
  for (const std::string& text : texts) {
    LoadedRecipe loaded = RecipeFile(kGoodRecipe).Load();
    std::get<GenerateStage>(loaded.recipe.stages[3]).prompt = text;
    loaded.recipe.data.files = {text, "b"};
    const Recipe again = Reloaded(loaded).recipe;
    EXPECT_EQ(std::get<GenerateStage>(again.stages[3]).prompt, text);
    EXPECT_EQ(again.data.files, loaded.recipe.data.files);
  }
}

TEST(ResolvedTest, CommentsNameTheOrigins) {
  const LoadedRecipe loaded = RecipeFile(kGoodRecipe).Load({"seed=7"});
  const std::string yaml = ResolvedYaml(loaded);
  EXPECT_NE(yaml.find("\nseed: 7  # command line\n"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find(StrCat("\n      steps: 100  # ", loaded.path, ":6:13\n")), std::string::npos);
  EXPECT_NE(yaml.find("\n      precision: bf16  # default\n"), std::string::npos);
}

TEST(ExplainTest, TellsDefaultUnitRangeAndReason) {
  const std::string text = ToText(ExplainKey("train.schedule.warmup_steps", nullptr));
  EXPECT_EQ(text,
            "train.schedule.warmup_steps: Linear rise from 0\n"
            "  type     whole number\n"
            "  unit     steps\n"
            "  range    0 to 1000000000\n"
            "  default  0\n"
            "  change   between two starts of a run is an error\n");
  EXPECT_NE(ToText(ExplainKey("train.precision", nullptr)).find("fp32 | bf16 | fp16"),
            std::string::npos);
  EXPECT_NE(ToText(ExplainKey("train.optimizer", nullptr)).find("AdamW"), std::string::npos);
}

TEST(ExplainTest, JsonSaysTheSame) {
  const LoadedRecipe loaded = RecipeFile(kGoodRecipe).Load({"seed=7"});
  const auto json = nlohmann::json::parse(ToJson(ExplainKey("seed", &loaded)));
  EXPECT_EQ(json["value"], "7");
  EXPECT_EQ(json["origin"], "command line");
  EXPECT_EQ(json["default"], "42");
  EXPECT_EQ(json["may_change"], false);
  const auto required = nlohmann::json::parse(ToJson(ExplainKey("model.num_layers", nullptr)));
  EXPECT_EQ(required["required"], true);
  EXPECT_TRUE(required["default"].is_null());
  EXPECT_TRUE(required["value"].is_null());
}

TEST(ExplainTest, WithARecipeTellsValueAndOriginUnderTheStagesId) {
  const LoadedRecipe loaded =
      RecipeFile(std::string(kGoodRecipe) + "  - train: {id: longer, steps: 5}\n").Load({"seed=3"});
  const auto here = [&](const std::string& key) {
    const std::string text = ToText(ExplainKey(key, &loaded));
    return text.substr(text.find("  here     "));
  };
  EXPECT_EQ(here("longer.steps"), StrCat("  here     5 (", loaded.path, ":10:25)\n"));
  EXPECT_EQ(here("train.steps"), StrCat("  here     100 (", loaded.path, ":6:13)\n"));
  EXPECT_EQ(here("seed"), "  here     3 (command line)\n");
  EXPECT_EQ(here("train.device"), "  here     auto (default)\n");
}

TEST(ExplainTest, UnknownKeysNameTheNearestAndTheHome) {
  const auto error = [](const std::string& key) {
    try {
      ExplainKey(key, nullptr);
    } catch (const RecipeError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(error("train.setps").find("did you mean train.steps?"), std::string::npos);
  EXPECT_NE(error("peak_lr").find("train.schedule"), std::string::npos);
  EXPECT_NE(error("").find("unknown key"), std::string::npos);
}

// Goal: a key without a reason, a unit in its name only, or a default outside of its range is seen.
TEST(SchemaTest, EveryKeyHasAReasonAndSaneDefaults) {
  std::vector<ListedField> all = ListRecipe(Recipe{});
  for (const char* kind : StageKinds()) {
    for (const ListedField& field : ListStage(MakeStage(kind))) all.push_back(field);
  }
  std::map<std::string, int> seen;
  for (const ListedField& field : all) {
    EXPECT_EQ(++seen[field.path], 1) << field.path << " is described twice";
    EXPECT_GT(std::string(field.meta.why).size(), 3u) << field.path;
    EXPECT_NO_THROW(ExplainKey(field.path, nullptr));
    if (field.is_map || field.meta.required) continue;
    if (field.type == "number" || field.type == "whole number") {
      EXPECT_GE(std::stod(field.value), field.meta.low) << field.path;
      EXPECT_LE(std::stod(field.value), field.meta.high) << field.path;
    }
  }
}

TEST(ExplainTest, KeysOfSourcesAreThoseOfTheirName) {
  EXPECT_EQ(ExplainKey("data.sources.web.weight", nullptr).fallback, "1");
  EXPECT_THROW(ExplainKey("data.sources.web.wieght", nullptr), RecipeError);
}

// docs/recipes.md is generated: TERN_UPDATE=1 writes it.
TEST(ReferenceTest, PageIsThatOfTheSchema) {
  const std::string path = TERN_SOURCE_DIR "/docs/recipes.md";
  const std::string page = RecipeReferenceMarkdown();
  if (std::getenv("TERN_UPDATE") != nullptr) WriteFileAtomically(path, page);
  EXPECT_TRUE(ReadFile(path) == page) << "docs/recipes.md is old; run bin/recipe_test with "
                                         "TERN_UPDATE=1 and commit it";
}

}  // namespace
}  // namespace tern::recipe
