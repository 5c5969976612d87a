// A recipe written into a folder of its own, with a configs folder beside it, for tests of the
// reader.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "recipe/load.h"
#include "tests/testing/temp_folder.h"

namespace tern::recipe {

inline void WriteText(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

class RecipeFile {
 public:
  explicit RecipeFile(const std::string& yaml) : path_(folder_ / "recipe.yaml") {
    std::filesystem::create_directories(folder_ / "configs");
    WriteText(path_, yaml);
  }
  void Rewrite(const std::string& yaml) const { WriteText(path_, yaml); }
  void AddPart(const std::string& name, const std::string& yaml) const {
    WriteText(folder_ / ("configs/" + name + ".yaml"), yaml);
  }
  LoadedRecipe Load(const std::vector<std::string>& overrides = {}) const {
    return LoadRecipe(path_, overrides);
  }
  // The message of the RecipeError of Load without the folder's name, or "" when it loads.
  std::string Error(const std::vector<std::string>& overrides = {}) const {
    try {
      Load(overrides);
    } catch (const RecipeError& error) {
      std::string message = error.what();
      const std::string prefix = folder_.path() + "/";
      for (size_t at; (at = message.find(prefix)) != std::string::npos;) {
        message.erase(at, prefix.size());
      }
      return message;
    }
    return "";
  }

 private:
  testing::TempFolder folder_;
  std::string path_;
};

// A small recipe that loads and passes CheckRecipe; lines 1 to 9.
inline constexpr const char* kGoodRecipe = R"(name: small
model: {hidden_size: 256, intermediate_size: 512, num_layers: 2, num_heads: 4, num_kv_heads: 2, context_length: 256}
data:
  files: ["my/*.txt"]
stages:
  - train: {steps: 100}
  - eval: {perplexity: {split: validation}}
  - export: {formats: [gguf/tq2_0]}
  - generate: {prompt: "Once", tokens: 8}
)";

// kGoodRecipe with the first `from` replaced by `to`.
inline std::string GoodRecipeWith(const std::string& from, const std::string& to) {
  std::string yaml = kGoodRecipe;
  const size_t at = yaml.find(from);
  TERN_CHECK(at != std::string::npos, from);
  return yaml.replace(at, from.size(), to);
}

}  // namespace tern::recipe
