// Mixed bits in folders: the size to the byte, one scheme for what engines fuse, a choice that is
// better than one scheme of the size, and a resumption that keeps the plan.
#include "ptq/folder_budget.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "formats/safetensors.h"
#include "ptq/block_pass.h"
#include "ptq/verify.h"
#include "tests/ptq/tiny_source.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

class FolderBudgetTest : public ::testing::Test {
 protected:
  FolderBudgetTest() { WriteTinySource(folder_); }

  QuantizeOptions Options(const std::string& name, double bits) const {
    QuantizeOptions options = TinyOptions(folder_, "int4", name);
    options.calibration = folder_ / "text.idx";
    options.group = 32;
    options.to_bits = bits;
    return options;
  }

  TempFolder folder_;
};

int64_t WeightFiles(const std::string& folder) {
  return static_cast<int64_t>(fs::file_size(folder + "/model.safetensors"));
}

// What a writer will write is what it says, sharded or not.
TEST(SafetensorsSizeTest, IsThatOfTheFiles) {
  const TempFolder folder;
  formats::SafetensorsWriter writer;
  const std::vector<float> values(5000);
  for (int i = 0; i < 12; ++i)
    writer.Add("tensor" + std::to_string(i), i % 2 == 0 ? "F32" : "U8", {97, 3 * i}, values.data());
  for (const int64_t shard : {int64_t{1000}, int64_t{9000}, int64_t{5'000'000'000}}) {
    const std::string path = folder / std::to_string(shard);
    fs::create_directories(path);
    writer.WriteFolder(path, shard);
    EXPECT_EQ(writer.FolderBytes(shard), formats::SafetensorsReader(path).size_bytes()) << shard;
  }
}

TEST_F(FolderBudgetTest, HasTheSizeAndFusedMatricesShareAScheme) {
  const QuantizeOptions options = Options("out", 4.2);
  const QuantizeReport report = QuantizeModel(options);
  ASSERT_TRUE(report.plan.has_value());
  const SizePlan& plan = *report.plan;
  EXPECT_EQ(WeightFiles(options.output), plan.chosen.size_bytes);
  EXPECT_EQ(report.size_bytes, plan.chosen.size_bytes);
  EXPECT_LE(plan.BitsPerWeight(plan.chosen.size_bytes), 4.2);
  EXPECT_EQ(plan.types.size(), 14u);
  std::set<std::string> used;
  for (int layer = 0; layer < 2; ++layer) {
    for (const Step step : kSteps) {
      std::set<std::string> of_step;
      for (const std::string& name : MatricesOf(step))
        of_step.insert(plan.types.at(StrCat("model.layers.", layer, ".", name)));
      EXPECT_EQ(of_step.size(), 1u) << layer;
      used.insert(of_step.begin(), of_step.end());
    }
  }
  EXPECT_GT(used.size(), 1u);  // Else nothing is mixed, and the test shows nothing
  for (size_t i = 1; i < plan.front.size(); ++i) {
    EXPECT_GT(plan.front[i].size_bytes, plan.front[i - 1].size_bytes);
    EXPECT_LT(plan.front[i].predicted_kl, plan.front[i - 1].predicted_kl);
  }
  VerifyOptions verify;
  verify.output = options.output;
  verify.source = options.source;
  EXPECT_EQ(VerifyQuantized(verify).compared, 14);
  const nlohmann::json config =
      nlohmann::json::parse(ReadFile(options.output + "/config.json"))["quantization_config"];
  EXPECT_EQ(config["format"], "pack-quantized");
  size_t targets = 0;
  for (const nlohmann::json& group : config["config_groups"]) targets += group["targets"].size();
  EXPECT_EQ(targets, 14u);
}

// Of the size of int4 alone: there, at most the mixture's loss is predicted, and it is measured.
TEST_F(FolderBudgetTest, IsBetterThanOneScheme) {
  QuantizeOptions one = Options("one", 0);
  one.to = "w3";
  one.method = "rtn";
  const QuantizeReport alone = QuantizeModel(one);
  QuantizeOptions options = Options("mixed", 0);
  options.method = "rtn";
  options.to_size = std::to_string(alone.size_bytes);
  const QuantizeReport mixed = QuantizeModel(options);
  EXPECT_LE(mixed.size_bytes, alone.size_bytes);
  EXPECT_LT(mixed.mean_kl, alone.mean_kl);
  // The prediction is held to a factor of 3, as in mixed_bits_test.
  EXPECT_GT(mixed.mean_kl, mixed.plan->chosen.predicted_kl / 3);
  EXPECT_LT(mixed.mean_kl, mixed.plan->chosen.predicted_kl * 3);
  // A byte less is another folder.
  options.output = folder_ / "smaller";
  options.to_size = std::to_string(mixed.size_bytes - 1);
  EXPECT_LT(QuantizeModel(options).size_bytes, mixed.size_bytes);
}

TEST_F(FolderBudgetTest, OnlyTheTypesThatAreNamed) {
  QuantizeOptions options = Options("out", 5);
  options.types = "int4,w8";
  const QuantizeReport report = QuantizeModel(options);
  for (const auto& [name, type] : report.plan->types)
    EXPECT_TRUE(type == "int4" || type == "w8") << name << " " << type;
}

// Stopped before and behind the first layer: the plan is read, not made again, and the bytes are
// the same.
TEST_F(FolderBudgetTest, GoesOnWithItsPlan) {
  const QuantizeOptions whole = Options("whole", 4.2);
  QuantizeModel(whole);
  QuantizeOptions cut = Options("cut", 4.2);
  int64_t end = 0;
  cut.progress = [&](int64_t done, int64_t) {
    if (done == end) throw StoppedError("here");
  };
  EXPECT_THROW(QuantizeModel(cut), StoppedError);
  const std::string plan = cut.output + ".partial/plan.json";
  const auto made = fs::last_write_time(plan);
  end = 1;
  EXPECT_THROW(QuantizeModel(cut), StoppedError);
  EXPECT_EQ(fs::last_write_time(plan), made);
  cut.progress = nullptr;
  QuantizeModel(cut);
  for (const char* file : {"model.safetensors", "config.json", "ledger.jsonl"})
    EXPECT_EQ(ReadFile(whole.output + "/" + file), ReadFile(cut.output + "/" + file)) << file;
  QuantizeOptions other = Options("other", 4.2);
  other.progress = [](int64_t done, int64_t) {
    if (done == 1) throw StoppedError("here");
  };
  EXPECT_THROW(QuantizeModel(other), StoppedError);
  other.to_bits = 5;
  EXPECT_THROW(QuantizeModel(other), InputError);  // The work of another job
}

TEST_F(FolderBudgetTest, TheFrontMakesNothing) {
  for (const char* name : {"out", "out.gguf"}) {
    const SizePlan plan = MeasureFront(Options(name, 0));
    EXPECT_GT(plan.front.size(), 4u) << name;
    EXPECT_TRUE(plan.types.empty()) << name;
    EXPECT_FALSE(fs::exists(folder_ / name)) << name;
    EXPECT_FALSE(fs::exists(folder_ / (std::string(name) + ".partial"))) << name;
  }
}

TEST_F(FolderBudgetTest, RefusesWhatCannotBe) {
  const auto refusal = [](const QuantizeOptions& options) -> std::string {
    try {
      QuantizeModel(options);
    } catch (const Error& error) {
      EXPECT_FALSE(fs::exists(options.output));
      EXPECT_FALSE(fs::exists(options.output + ".partial"));
      return error.what();
    }
    return "";
  };
  QuantizeOptions options = Options("out", 1);
  EXPECT_NE(refusal(options).find("the smallest has"), std::string::npos) << refusal(options);
  options = Options("out", 4.2);
  options.types = "int4,int8";
  options.group = -1;
  EXPECT_NE(refusal(options).find("quantizes activations"), std::string::npos);
  options.types = "int4,int5";
  EXPECT_NE(refusal(options).find("--to int5"), std::string::npos);
  options.types = "int4,nvfp4";
  options.method = "hqq";
  EXPECT_NE(refusal(options).find("--method hqq with --to nvfp4"), std::string::npos);
  options.method = "";
  options.output = folder_ / "out.gguf";
  options.types = "q4_0,q4_7";
  EXPECT_NE(refusal(options).find("--types Q4_7; want some of Q2_K"), std::string::npos);
  options = Options("out", 4.2);
  options.container = "gptq";
  EXPECT_NE(refusal(options).find("holds one type"), std::string::npos);
  options = Options("out", 4.2);
  options.calibration = "";
  EXPECT_NE(refusal(options).find("need --calibration"), std::string::npos);
  options = Options("out", 0);
  options.types = "int4";
  EXPECT_NE(refusal(options).find("--types is of"), std::string::npos);
  options.to = "q8_0";
  options.output = folder_ / "out.gguf";
  EXPECT_NE(refusal(options).find("--types is of"), std::string::npos);
}

}  // namespace
}  // namespace tern::ptq
