// Recipes that want to hurt: names that the file system will not look at, parts that multiply, keys
// by the ten thousand. All must end in a RecipeError, and soon
// (the tests' own time limit would show it).
#include <gtest/gtest.h>

#include "tests/recipe/recipe_file.h"

namespace tern::recipe {
namespace {

std::string ErrorOfUse(const std::string& name) {
  return RecipeFile(GoodRecipeWith("{steps: 100}", "{use: " + name + "}")).Error();
}

TEST(HostileTest, NamesThatAreNoFileNames) {
  for (const std::string& name :
       {std::string(300, 'n'), std::string(5000, 'n'), std::string("\"a\\0b\""),
        std::string("\".\""), std::string("\"a\\nb\""), std::string("model/bitnet_3m/x")}) {
    EXPECT_EQ(ErrorOfUse(name).substr(0, 23), "recipe.yaml:6:13: use: ") << name;
  }
}

// Looking up 90,000 keys one by one, each among all, would take minutes.
TEST(HostileTest, ManyKeysInOneMap) {
  std::string yaml = kGoodRecipe;
  for (int i = 0; i < 90'000; ++i) yaml += StrCat("k", i, ": 1\n");
  EXPECT_NE(RecipeFile(yaml).Error().find("more than 1000 keys in one map"), std::string::npos);
}

// Twelve parts that each use the next one twice stand for 4,096 readings of the last.
TEST(HostileTest, PartsThatMultiply) {
  RecipeFile file(GoodRecipeWith("{steps: 100}", "{use: p0}"));
  for (int i = 0; i < 12; ++i) {
    file.AddPart(StrCat("p", i), StrCat("x: {use: p", i + 1, "}\ny: {use: p", i + 1, "}\n"));
  }
  file.AddPart("p12", "steps: 3\n");
  EXPECT_NE(file.Error().find("more than 1000 parts in one recipe"), std::string::npos);
}

TEST(HostileTest, BytesThatAreNotUtf8) {
  EXPECT_NE(RecipeFile(StrCat(kGoodRecipe, "# \xff\n")).Error().find("is not UTF-8"),
            std::string::npos);
  EXPECT_NE(RecipeFile(kGoodRecipe).Error({"name=\xc3"}).find("is not UTF-8"), std::string::npos);
}

TEST(HostileTest, ARateOfZeroTrainsNothing) {
  EXPECT_NE(RecipeFile(kGoodRecipe).Error({"train.schedule.peak_lr=0"}).find("peak_lr"),
            std::string::npos);
}

// An argument can hold sixty thousand levels, and trees are copied and dropped recursively: whether
// that works would depend on the stack.
TEST(HostileTest, DeepKeysOnTheCommandLine) {
  std::string key = "train";
  for (int i = 0; i < 60'000; ++i) key += ".a";
  EXPECT_NE(RecipeFile(kGoodRecipe).Error({key + "=1"}).find("more than 16 parts of a key"),
            std::string::npos);
}

}  // namespace
}  // namespace tern::recipe
