// Recipes that start from a model of others: its shape, tokenizer and parameters are used, what
// contradicts it is refused, and a stage goes on from the one before it.
#include "job/start.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/engine/tiny_files.h"
#include "tests/job/dense_run.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;

// MODEL stands for the export of kDense.
constexpr const char* kTuned = R"(name: small
model: {from: MODEL}
data: {files: [TEXTS/*.txt], validation_fraction: 0.2}
stages:
  - train: {steps: 1, tokens_per_step: 256, sequence_length: 32, precision: fp32, eval_tokens: 0,
            schedule: {kind: constant, peak_lr: 1.0e-9}}
)";

class StartTest : public ::testing::Test {
 protected:
  static std::string Model() { return DenseModel(); }
  static std::string Tuned(const std::string& model = Model()) {
    std::string yaml = kTuned;
    yaml.replace(yaml.find("MODEL"), 5, model);
    return yaml;
  }
  static double ValidationLoss(const SmallRun& run, const std::string& id = "train") {
    return run.Result(id)["validation_loss"].get<double>();
  }
  static void Run(const SmallRun& run, const std::vector<std::string>& overrides = {}) {
    RunRecipe(run.Load(overrides), {run.runs(), "", ""});
  }
  template <class E>
  static std::string Refused(const SmallRun& run, const std::vector<std::string>& overrides) {
    try {
      Run(run, overrides);
    } catch (const E& error) {
      return error.what();
    }
    ADD_FAILURE() << "not refused";
    return "";
  }
};

// Same texts, seed and so the same held-out documents; a step at a rate of 1e-9 changes no loss by
// 1e-5, and fp32 values went through an fp32 file.
TEST_F(StartTest, ADenseModelGoesOnWhereItStands) {
  const SmallRun run(Tuned());
  Run(run);
  EXPECT_NEAR(ValidationLoss(run), ValidationLoss(DenseRun()), 1e-4);
  EXPECT_EQ(run.Result("prepare")["tokenizer_sha256"],
            DenseRun().Result("prepare")["tokenizer_sha256"]);
}

TEST_F(StartTest, ATernaryStudentWithSubNormsIsTrainedAndShipped) {
  const SmallRun run(Tuned() + "  - export: {formats: [hf/bitnet]}\n  - verify: {tokens: 16}\n");
  Run(run, {"model.linear=bitlinear", "model.sub_norms=outputs", "train.steps=8",
            "train.schedule.peak_lr=1.0e-3"});
  EXPECT_EQ(run.Result("verify")["files"][0]["ternary_matrices"], 14);
  EXPECT_TRUE(fs::exists(run.Path("exports/small-hf-bitnet/model.safetensors")));
  EXPECT_LT(ValidationLoss(run), std::log(300.0));  // Better than knowing nothing
}

// Norms before each linear layer, ternary, to what transformers' BitLinear(use_rms_norm) reads; and
// without pre-norms, to tern's own file.
TEST_F(StartTest, NormsOfEveryLinearLayerAreTrainedAndShipped) {
  for (const char* placement : {"every_linear", "every_linear_only"}) {
    const bool only = std::string(placement) == "every_linear_only";
    const SmallRun run(Tuned() + "  - export: {formats: [" + (only ? "" : "hf/bitnet, ") +
                       "tern/model]}\n  - verify: {tokens: 16}\n");
    Run(run, {"model.linear=bitlinear", StrCat("model.sub_norms=", placement), "train.steps=8",
              "train.schedule.peak_lr=1.0e-3"});
    for (const auto& file : run.Result("verify")["files"])
      EXPECT_EQ(file["ternary_matrices"], 14) << file;
    EXPECT_TRUE(fs::exists(run.Path("exports/small.h5")));
    EXPECT_LT(ValidationLoss(run), std::log(300.0));
  }
}

TEST_F(StartTest, FittedSubNormsKeepWhatTheModelKnows) {
  for (const char* placement : {"outputs", "every_linear", "every_linear_only"}) {
    const SmallRun run(Tuned());
    Run(run, {StrCat("model.sub_norms=", placement)});
    // Measured 0.02; gains of 1 end 0.5 away.
    EXPECT_NEAR(ValidationLoss(run), ValidationLoss(DenseRun()), 0.1) << placement;
  }
}

TEST_F(StartTest, ALaterStageGoesOnFromTheOneBefore) {
  const SmallRun run(
      Tuned() +
      "  - train: {id: second, steps: 1, tokens_per_step: 256, sequence_length: 32, "
      "precision: fp32, eval_tokens: 0, schedule: {kind: constant, peak_lr: 1.0e-9}}\n");
  Run(run, {"train.steps=10", "train.schedule.peak_lr=4.0e-3"});
  EXPECT_NEAR(ValidationLoss(run, "second"), ValidationLoss(run), 1e-4);
}

TEST_F(StartTest, WhatContradictsTheModelIsRefused) {
  const SmallRun run(Tuned());
  EXPECT_NE(Refused<RecipeError>(run, {"model.hidden_size=64"}).find("found beside model.from"),
            std::string::npos);
  EXPECT_NE(Refused<RecipeError>(run, {"data.tokenizer.vocab_size=300"}).find("data.tokenizer"),
            std::string::npos);
  EXPECT_NE(Refused<RecipeError>(run, {"model.context_length=64"}).find("is longer than that of"),
            std::string::npos);
  EXPECT_NE(Refused<InputError>(run, {"model.from=nowhere"}).find("nowhere"), std::string::npos);
  EXPECT_FALSE(fs::exists(run.runs()));  // Before anything is made
}

// A tiny dense model around a byte-level BPE. GGUF cannot say all of the golden one's added tokens.
void WriteBpeModel(const std::string& folder, bool for_gguf) {
  const auto golden =
      nlohmann::json::parse(ReadFile(TERN_SOURCE_DIR "/tests/text/golden/tokenizers.json"));
  nlohmann::json tokenizer = golden["families"]["smollm"]["tokenizer"];
  tokenizer["post_processor"] = nullptr;
  nlohmann::json special = nlohmann::json::array();
  for (const nlohmann::json& token : tokenizer["added_tokens"])
    if (token["content"] == "<|endoftext|>") special.push_back(token);
  if (for_gguf) tokenizer["added_tokens"] = special;
  ModelConfig config = testing::TinyConfig(ArchName::kLlama, LinearKind::kDense);
  config.vocab_size = 768;
  testing::WriteHfFolder(testing::MakeTinyModel(config, 31), folder);
  WriteFileAtomically(folder + "/tokenizer.json", tokenizer.dump());
  WriteFileAtomically(folder + "/tokenizer_config.json", R"({"eos_token": "<|endoftext|>"})");
}

TEST_F(StartTest, GgufHoldsTheTokenizerOfTheStartOrIsRefusedBeforeTraining) {
  const testing::TempFolder models;
  const std::string exported = "  - export: {formats: [gguf/f16]}\n";
  WriteBpeModel(models / "plain", true);
  const SmallRun run(Tuned(models / "plain") + exported);
  Run(run, {"train.sequence_length=16", "train.eval_every=0"});
  EXPECT_TRUE(fs::exists(run.Path("exports/small-f16.gguf")));
  WriteBpeModel(models / "added", false);
  const SmallRun refused(Tuned(models / "added") + exported);
  const std::string why = Refused<RecipeError>(refused, {});
  EXPECT_NE(why.find("export.formats: "), std::string::npos) << why;
  EXPECT_NE(why.find("GGUF cannot say this tokenizer"), std::string::npos) << why;
  const SmallRun quantized(Tuned(models / "added") + "  - quantize: {to: q8_0}\n");
  EXPECT_NE(Refused<RecipeError>(quantized, {}).find("quantize.to: "), std::string::npos);
}

TEST_F(StartTest, AnotherModelUnderTheSameNameIsAnotherRun) {
  const std::string copy = DenseRun().folder() / "copy";
  fs::copy(Model(), copy, fs::copy_options::recursive);
  const SmallRun run(Tuned(copy));
  Run(run);
  Run(run);  // Nothing to do
  std::fstream file(copy + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-2, std::ios::end);
  file.put('\x3c');
  file.close();
  EXPECT_NE(Refused<RecipeError>(run, {}).find("model.from_sha256"), std::string::npos);
  fs::rename(Model(), Model() + "-moved");
  fs::remove_all(copy);
  fs::rename(Model() + "-moved", Model());
}

}  // namespace
}  // namespace tern::job
