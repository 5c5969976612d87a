// tern recipe check | show | explain.
#include <CLI/CLI.hpp>
#include <iostream>
#include <optional>

#include "base/log.h"
#include "cli/commands.h"
#include "job/quantize_stage.h"
#include "job/start.h"
#include "recipe/check.h"
#include "recipe/explain.h"
#include "recipe/load.h"

namespace tern::cli {
namespace {

struct RecipeFlags {
  std::string recipe, key;
  std::vector<std::string> overrides;
  bool json = false;
};

std::shared_ptr<RecipeFlags> AddRecipeArguments(CLI::App* command) {
  auto flags = std::make_shared<RecipeFlags>();
  command->add_option("recipe", flags->recipe, "Recipe file")->required();
  command->add_option("overrides", flags->overrides, "key=value");
  return flags;
}

}  // namespace

void AddRecipeCommand(CLI::App& app) {
  CLI::App* recipe = app.add_subcommand("recipe", "Check, show or explain recipes");
  recipe->require_subcommand(1);

  CLI::App* check = recipe->add_subcommand("check", "Is this recipe sound? Reads no data");
  check->footer("Example: tern recipe check recipes/quickstart.yaml");
  const auto check_flags = AddRecipeArguments(check);
  check->callback([check_flags] {
    const recipe::LoadedRecipe loaded =
        job::Resolved(recipe::LoadRecipe(check_flags->recipe, check_flags->overrides));
    for (const std::string& warning : recipe::CheckRecipe(loaded)) LogWarn(warning);
    job::CheckQuantizeStages(loaded);
    job::CheckPatterns(loaded.recipe);
    std::cout << check_flags->recipe << ": sound, " << loaded.recipe.stages.size() << " stages\n";
  });

  CLI::App* show = recipe->add_subcommand("show", "Every key with its value and origin, as YAML");
  show->footer("Example: tern recipe show recipes/quickstart.yaml train.steps=100");
  const auto show_flags = AddRecipeArguments(show);
  show->callback([show_flags] {
    std::cout << recipe::ResolvedYaml(
        job::Resolved(recipe::LoadRecipe(show_flags->recipe, show_flags->overrides)));
  });

  CLI::App* explain = recipe->add_subcommand("explain", "Default, range and reason of a key");
  explain->footer(
      "Examples:\n  tern recipe explain train.steps\n  tern recipe explain train.schedule.peak_lr "
      "--recipe "
      "recipes/quickstart.yaml");
  auto flags = std::make_shared<RecipeFlags>();
  explain->add_option("key", flags->key, "Key path, such as train.steps")->required();
  explain->add_option("--recipe", flags->recipe, "Also tell its value in this recipe");
  explain->add_flag("--json", flags->json, "One JSON object instead of text");
  explain->callback([flags] {
    std::optional<recipe::LoadedRecipe> loaded;
    if (!flags->recipe.empty()) loaded = recipe::LoadRecipe(flags->recipe, {});
    const recipe::KeyExplanation key = recipe::ExplainKey(flags->key, loaded ? &*loaded : nullptr);
    std::cout << (flags->json ? recipe::ToJson(key) : recipe::ToText(key));
  });
}

}  // namespace tern::cli
