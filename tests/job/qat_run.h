// Recipes that tune the small dense model with itself as the teacher.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "tests/job/dense_run.h"

namespace tern::job {

inline constexpr const char* kTuned = R"(name: small
model: {from: MODEL}
teacher: {from: MODEL}
data: {files: [TEXTS/*.txt], validation_fraction: 0.2}
stages:
  - train: {steps: 10, tokens_per_step: 256, sequence_length: 32, precision: fp32, eval_tokens: 0,
            eval_every: 0, checkpoint_every: 2, optimizer: {weight_decay: 0},
            schedule: {kind: constant, peak_lr: 1.0e-3},
            losses: {cross_entropy: {weight: 0}, forward_kl: {weight: 1}}}
  - eval: {perplexity: {split: validation}}
  - export: {formats: [hf/f32]}
  - verify: {tokens: 16}
)";

class QatTest : public ::testing::Test {
 protected:
  static std::string Tuned() {
    std::string yaml = kTuned;
    for (size_t at; (at = yaml.find("MODEL")) != std::string::npos;)
      yaml.replace(at, 5, DenseModel());
    return yaml;
  }
  static void Run(const SmallRun& run, const std::vector<std::string>& overrides) {
    RunRecipe(run.Load(overrides), {run.runs(), "", ""});
  }
  static std::string Refused(const std::vector<std::string>& overrides) {
    const SmallRun run(Tuned());
    try {
      Run(run, overrides);
    } catch (const RecipeError& error) {
      EXPECT_FALSE(std::filesystem::exists(run.runs()));  // Before anything is made
      return error.what();
    }
    ADD_FAILURE() << "not refused";
    return "";
  }
};

}  // namespace tern::job
