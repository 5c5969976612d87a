// tern quantize with training of layers: every format of integers, resumed to the same bytes,
// behind every method, and what makes no sense is refused.
#include "ptq/layer_training.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "ptq/ledger.h"
#include "ptq/quantize_model.h"
#include "tests/ptq/tiny_source.h"

namespace tern::ptq {
namespace {

class LayerTrainingTest : public ::testing::Test {
 protected:
  LayerTrainingTest() { WriteTinySource(folder_); }
  QuantizeOptions Options(const std::string& to, const std::string& name) {
    QuantizeOptions options = TinyOptions(folder_, to, name);
    options.calibration = folder_ / "text.idx";
    options.method = "autoround";
    options.auto_round_steps = 80;
    return options;
  }
  testing::TempFolder folder_;
};

TEST_F(LayerTrainingTest, AutoRoundOfEveryFormatOfIntegers) {
  for (const char* to : {"int4", "int4_asym", "w3", "w2", "w8", "int8"}) {
    const QuantizeOptions options = Options(to, to);
    const QuantizeReport report = QuantizeModel(options);
    EXPECT_EQ(report.fallbacks, 0) << to;
    for (const nlohmann::json& line : ReadLedger(LedgerPath(options.output)).matrices) {
      EXPECT_EQ(line["method"], "autoround") << to;
      EXPECT_LT(line["block_error"], line["block_error_before"]) << to;
      EXPECT_GT(line["kept_step"], 0) << to;
      EXPECT_FALSE(line.contains("kept_scale_step")) << to;
    }
  }
}

TEST_F(LayerTrainingTest, AutoRoundIsNearerToTheSourceThanRounding) {
  QuantizeOptions options = Options("w3", "rounded");
  options.auto_round_steps = 0;
  options.method = "rtn";
  const double rounded = QuantizeModel(options).mean_kl;
  options = Options("w3", "learned");
  options.auto_round_steps = 60;
  EXPECT_LT(QuantizeModel(options).mean_kl, 0.8 * rounded);
}

// Behind each method, and both kinds of training behind each other.
TEST_F(LayerTrainingTest, ScalesAreTrainedBehindEveryMethod) {
  for (const char* method : {"rtn", "hqq", "gptq", "autoround"}) {
    QuantizeOptions options = Options("int4_asym", method);
    options.method = method;
    if (options.method != "autoround") options.auto_round_steps = 0;
    options.scale_steps = 20;
    QuantizeModel(options);
    QuantizeOptions without = options;
    without.scale_steps = 0;
    without.output += "-without";
    QuantizeModel(without);
    const auto with_lines = ReadLedger(LedgerPath(options.output)).matrices,
               lines = ReadLedger(LedgerPath(without.output)).matrices;
    // The first layer has the same inputs in both.
    EXPECT_LT(with_lines[0]["block_error"], with_lines[0]["block_error_before"]) << method;
    EXPECT_GT(with_lines[0]["kept_scale_step"], 0) << method;
    EXPECT_NE(with_lines[0]["values_sha256"], lines[0]["values_sha256"]) << method;
    if (options.method == "autoround") {
      EXPECT_EQ(with_lines[0]["block_error_before"], lines[0]["block_error_before"]);
      EXPECT_LT(with_lines[0]["block_error"], lines[0]["block_error"]);
    }
  }
}

TEST_F(LayerTrainingTest, ComesBehindChannelScalesAndInOtherContainers) {
  QuantizeOptions options = Options("int4", "scaled");
  options.channel_scales = true;
  options.scale_steps = 5;
  EXPECT_EQ(QuantizeModel(options).fallbacks, 0);
  EXPECT_TRUE(ReadLedger(LedgerPath(options.output)).matrices[0].contains("channel_exponent"));
  for (const char* container : {"gptq", "gptq_v2", "awq"}) {
    QuantizeOptions packed = Options("int4", container);
    packed.container = container;
    EXPECT_EQ(QuantizeModel(packed).fallbacks, 0) << container;
  }
}

// The ledger has sums over whole matrices, whose last digits depend on the threads.
TEST_F(LayerTrainingTest, WeightsDoNotDependOnThreads) {
  std::string weights[2];
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    QuantizeOptions options = Options("int4_asym", StrCat("threads", threads));
    options.scale_steps = 10;
    QuantizeModel(options);
    weights[threads - 1] = ReadFile(options.output + "/model.safetensors");
  }
  at::set_num_threads(1);
  EXPECT_TRUE(weights[0] == weights[1]);
}

// Cut behind the first layer: the same bytes.
TEST_F(LayerTrainingTest, GoesOnWhereItWasCut) {
  QuantizeOptions options = Options("w3", "whole");
  options.scale_steps = 10;
  QuantizeModel(options);
  struct Cut {};
  QuantizeOptions cut = options;
  cut.output = folder_ / "cut";
  cut.progress = [](int64_t layer, int64_t) {
    if (layer == 1) throw Cut();
  };
  EXPECT_THROW(QuantizeModel(cut), Cut);
  QuantizeOptions other = cut;
  other.auto_round_steps = 81;
  EXPECT_THROW(QuantizeModel(other), InputError);
  other = cut;
  other.scale_steps = 0;
  EXPECT_THROW(QuantizeModel(other), InputError);
  std::vector<int64_t> worked;
  cut.progress = [&](int64_t layer, int64_t) { worked.push_back(layer); };
  QuantizeModel(cut);
  EXPECT_EQ(worked.front(), 1);
  EXPECT_TRUE(ReadFile(cut.output + "/ledger.jsonl") == ReadFile(options.output + "/ledger.jsonl"));
}

TEST_F(LayerTrainingTest, RefusesWhatMakesNoSense) {
  int count = 0;
  const auto refused = [&](const auto& change, const std::string& words) {
    QuantizeOptions options = Options("int4", StrCat("refused", ++count));
    change(options);
    try {
      QuantizeModel(options);
      ADD_FAILURE() << "not refused: " << words;
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  refused([](QuantizeOptions& o) { o.calibration = ""; }, "needs --calibration");
  refused([](QuantizeOptions& o) { o.to = "fp8"; }, "want a format of integers");
  refused([](QuantizeOptions& o) { o.to = "nvfp4"; }, "want a format of integers");
  refused([](QuantizeOptions& o) { o.method = "gptq"; }, "those of --method autoround");
  refused([](QuantizeOptions& o) { o.method = "learned"; },
          "want one of rtn, hqq, gptq, autoround");
  const auto scales = [](QuantizeOptions& o) {
    o.method = "rtn";
    o.auto_round_steps = 0;
    o.scale_steps = 10;
  };
  refused([&](QuantizeOptions& o) { scales(o), o.calibration = ""; }, "--scale-steps needs");
  refused([&](QuantizeOptions& o) { scales(o), o.to = "mxfp4"; }, "integer codes");
  refused([&](QuantizeOptions& o) { scales(o), o.to = "q4_0"; }, "for folders");
}

}  // namespace
}  // namespace tern::ptq
