// A recipe that goes through every kind of stage in a second or two: text made here, one layer, a
// vocabulary of 300.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "recipe/load.h"
#include "tests/testing/temp_folder.h"

namespace tern::job {

inline constexpr const char* kSmallRecipe = R"(name: small
model: {hidden_size: 256, intermediate_size: 256, num_layers: 1, num_heads: 4, num_kv_heads: 2, context_length: 32,
        sub_norms: outputs, tied_head: true}
data: {files: [TEXTS/*.txt], validation_fraction: 0.2, tokenizer: {vocab_size: 300}}
stages:
  - train:
      {steps: 24, tokens_per_step: 128, sequence_length: 32, schedule: {peak_lr: 2.0e-3, second_lr: 1.0e-3},
       eval_every: 8, eval_tokens: 256, checkpoint_every: 3, health_every: 5}
  - eval: {perplexity: {split: validation, tokens: 512}}
  - export: {formats: [gguf/tq2_0, gguf/i2_s, hf/bitnet]}
  - verify: {tokens: 16}
  - generate: {prompt: "the", tokens: 4}
  - report: {}
)";

// Sentences of a few hundred made-up words, `size_bytes` or a little more.
inline std::string MadeUpText(uint64_t seed, size_t size_bytes) {
  RandomStream random(seed, "text");
  std::vector<std::string> words;
  for (int i = 0; i < 200; ++i) {
    std::string word;
    for (uint64_t letters = 2 + random.NextU64() % 6; letters > 0; --letters)
      word += static_cast<char>('a' + random.NextU64() % 26);
    words.push_back(word);
  }
  std::string text;
  while (text.size() < size_bytes) {
    text += words[random.NextU64() % words.size()];
    text += random.NextU64() % 9 == 0 ? ".\n" : " ";
  }
  return text;
}

// A folder with texts, the recipe and the runs.
class SmallRun {
 public:
  explicit SmallRun(const std::string& yaml = kSmallRecipe) {
    for (int i = 0; i < 6; ++i) {
      AddText("text" + std::to_string(i), MadeUpText(static_cast<uint64_t>(i), 8000));
    }
    std::filesystem::create_directories(folder_ / "configs");
    std::string placed = yaml;
    for (size_t at; (at = placed.find("TEXTS")) != std::string::npos;)
      placed.replace(at, 5, folder_ / "texts");
    std::ofstream(recipe()) << placed;
  }

  void AddText(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(folder_ / "texts");
    std::ofstream(folder_ / ("texts/" + name + ".txt"), std::ios::binary) << text;
  }
  recipe::LoadedRecipe Load(const std::vector<std::string>& overrides = {}) const {
    return recipe::LoadRecipe(recipe(), overrides);
  }
  std::string recipe() const { return folder_ / "recipe.yaml"; }
  std::string runs() const { return folder_ / "runs"; }
  std::string Path(const std::string& name) const { return runs() + "/small/" + name; }
  // What a stage that is done has found.
  nlohmann::json Result(const std::string& stage_id) const {
    return nlohmann::json::parse(ReadFile(Path("stages/" + stage_id + ".json")))["result"];
  }
  const testing::TempFolder& folder() const { return folder_; }

 private:
  testing::TempFolder folder_;
};

}  // namespace tern::job
