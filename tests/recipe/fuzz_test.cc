// Random damage to recipes: reading, checking and resolving must end in a result or a RecipeError,
// and what loads must survive being resolved. Replays from its seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/random.h"
#include "recipe/check.h"
#include "recipe/explain.h"
#include "recipe/fingerprint.h"
#include "recipe/schema.h"
#include "tests/recipe/recipe_file.h"

namespace tern::recipe {
namespace {

constexpr int kRounds = 1000;

// Pieces that mean something to YAML or to the schema.
const std::string kPieces[] = {":",
                               ": ",
                               "- ",
                               "{",
                               "}",
                               "[",
                               "]",
                               ",",
                               "#",
                               "\n",
                               "\n  ",
                               "\t",
                               "\"",
                               "'",
                               "&a ",
                               "*a",
                               "!!s",
                               "~",
                               "null",
                               "---\n",
                               "...",
                               "|\n",
                               ">",
                               "<<: ",
                               "%",
                               "@",
                               "\\x",
                               "\xff",
                               "\xef\xbb\xbf",
                               "use: a",
                               "use: loop",
                               "id: model",
                               "steps: -1",
                               "1e999",
                               "nan",
                               "9223372036854775808",
                               "0x1p3",
                               "train: {}",
                               "stages: ",
                               "model: ",
                               "parallel: ",
                               "teacher: ",
                               "fp16",
                               "relu2"};

class Mutator {
 public:
  explicit Mutator(std::string_view name) : random_(/*seed=*/7, name) {}

  size_t Below(size_t n) { return static_cast<size_t>(random_.NextU64() % n); }

  std::string Mutate(std::string text) {
    for (size_t edits = 1 + Below(2); edits > 0; --edits) {
      const size_t at = Below(text.size() + 1), end = std::min(text.size(), at + Below(12));
      switch (Below(5)) {
        case 0:
          text.insert(at, kPieces[Below(std::size(kPieces))]);
          break;
        case 1:
          text.erase(at, end - at);
          break;
        case 2:
          text.insert(Below(text.size() + 1), text.substr(at, end - at));
          break;
        case 3:
          if (at < text.size()) text[at] = static_cast<char>(Below(256));
          break;
        case 4:
          text = text.substr(0, at) + text.substr(Below(text.size() + 1));
          break;
      }
    }
    return text;
  }

 private:
  RandomStream random_;
};

// Everything a program does with a recipe that loaded.
void Use(const LoadedRecipe& loaded, const RecipeFile& scratch) {
  try {
    CheckRecipe(loaded);
  } catch (const RecipeError&) {
  }
  for (const Stage& stage : loaded.recipe.stages) FingerprintOf(loaded.recipe, stage);
  ExplainKey("seed", &loaded);
  // Programs read model.from first, and fill in what the recipe leaves to it.
  if (loaded.recipe.model.context_length == 0) return;
  const std::string yaml = ResolvedYaml(loaded);
  scratch.Rewrite(yaml);
  const std::string refusal =
      scratch.Error();  // Not thrown: callers take a RecipeError for granted
  ASSERT_EQ(refusal, "") << yaml;
  const LoadedRecipe again = scratch.Load();
  EXPECT_EQ(again.recipe.model, loaded.recipe.model) << yaml;
  EXPECT_EQ(again.recipe.name, loaded.recipe.name) << yaml;
  EXPECT_EQ(again.recipe.data.files, loaded.recipe.data.files) << yaml;
  ASSERT_EQ(again.recipe.stages.size(), loaded.recipe.stages.size()) << yaml;
  for (size_t i = 0; i < again.recipe.stages.size(); ++i) {
    EXPECT_EQ(FingerprintOf(again.recipe, again.recipe.stages[i]),
              FingerprintOf(loaded.recipe, loaded.recipe.stages[i]));
  }
}

// Whether `yaml` loads; it then goes through all that a program does. A RecipeError is a refusal,
// any other error a finding.
bool LoadsAndServes(const std::string& yaml, const RecipeFile& file, const RecipeFile& scratch) {
  bool loads = false;
  file.Rewrite(yaml);
  try {
    const LoadedRecipe loaded = file.Load();
    loads = true;
    Use(loaded, scratch);
  } catch (const RecipeError&) {
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what() << "\n" << yaml;
  }
  return loads;
}

TEST(RecipeFuzz, DamagedFilesLoadOrAreRefused) {
  Mutator mutator("recipe files");
  int loaded_count = 0;
  const std::string seeds[] = {kGoodRecipe, ResolvedYaml(RecipeFile(kGoodRecipe).Load()),
                               GoodRecipeWith("{steps: 100}", "{use: [a, b], id: first}")};
  const RecipeFile file(""), scratch("");
  file.AddPart("a", "steps: 3\n");
  file.AddPart("b", "schedule: {kind: cosine}\n");
  file.AddPart("loop", "optimizer: {use: loop}\n");
  for (int round = 0; round < kRounds; ++round) {
    const std::string yaml = mutator.Mutate(seeds[mutator.Below(std::size(seeds))]);
    loaded_count += LoadsAndServes(yaml, file, scratch);
  }
  // Both outcomes must be common, else the fuzzing says little.
  EXPECT_GT(loaded_count, kRounds / 20);
  EXPECT_LT(loaded_count, kRounds * 19 / 20);
}

// The recipes that come with tern, with their parts, as the starting points.
TEST(RecipeFuzz, DamagedRecipesOfTheRepositoryLoadOrAreRefused) {
  Mutator mutator("recipes of the repository");
  std::vector<std::string> seeds;
  for (const auto& entry : std::filesystem::directory_iterator(TERN_SOURCE_DIR "/recipes")) {
    if (entry.path().extension() == ".yaml") seeds.push_back(ReadFile(entry.path()));
  }
  std::sort(seeds.begin(), seeds.end());  // The order of a folder is not the same everywhere
  ASSERT_FALSE(seeds.empty());
  const RecipeFile file(""), scratch("");
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(TERN_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    const auto name = entry.path().lexically_relative(TERN_SOURCE_DIR "/configs");
    file.AddPart(name.parent_path() / name.stem(), ReadFile(entry.path()));
  }
  for (const std::string& seed : seeds) {
    file.Rewrite(seed);
    ASSERT_EQ(file.Error(), "");
  }
  int loaded_count = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::string& seed = seeds[mutator.Below(seeds.size())];
    // Comments open each recipe; damage there proves nothing.
    const size_t body = seed.find("\nname:");
    const std::string yaml = mutator.Mutate(seed.substr(body + 1));
    loaded_count += LoadsAndServes(yaml, file, scratch);
  }
  EXPECT_GT(loaded_count, kRounds / 20);
  EXPECT_LT(loaded_count, kRounds * 19 / 20);
}

TEST(RecipeFuzz, DamagedOverridesLoadOrAreRefused) {
  Mutator mutator("overrides");
  const std::string seeds[] = {
      "train.steps=100",          "data.files=[my/*.txt]", "name=mine",
      "train={use: a, steps: 3}", "model.hidden_size=512", "stages=[{train: {}}]"};
  const RecipeFile file(kGoodRecipe), scratch("");
  file.AddPart("a", "steps: 3\n");
  for (int round = 0; round < kRounds; ++round) {
    const std::string override = mutator.Mutate(seeds[mutator.Below(std::size(seeds))]);
    try {
      Use(file.Load({override}), scratch);
    } catch (const RecipeError&) {
    } catch (const std::exception& error) {
      FAIL() << "round " << round << ": " << error.what() << "\n" << override;
    }
  }
}

}  // namespace
}  // namespace tern::recipe
