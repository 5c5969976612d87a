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
  QuantizeOptions Options(const std::string& to, const std::string& name,
                          const std::string& method = "autoround") {
    QuantizeOptions options = TinyOptions(folder_, to, name);
    options.calibration = folder_ / "text.idx";
    options.method = method;
    options.layer_steps = 80;
    if (method == "block_ap") options.block_ap = {1e-4, 1e-5};
    return options;
  }
  testing::TempFolder folder_;
};

TEST_F(LayerTrainingTest, TrainsEveryFormatOfIntegers) {
  for (const char* method : {"autoround", "block_ap"}) {
    for (const char* to : {"int4", "int4_asym", "w3", "w3_asym", "w2", "w2_asym", "w8", "int8"}) {
      QuantizeOptions options = Options(to, StrCat(method, to), method);
      // Rates in proportion to the distance of codes.
      if (method == std::string("block_ap") && std::string(to).find('8') != std::string::npos)
        options.block_ap = {1e-5, 1e-7};
      const QuantizeReport report = QuantizeModel(options);
      EXPECT_EQ(report.fallbacks, 0) << method << to;
      for (const nlohmann::json& line : ReadLedger(LedgerPath(options.output)).matrices) {
        EXPECT_EQ(line["method"], method) << to;
        EXPECT_LT(line["block_error"], line["block_error_before"]) << method << to;
        EXPECT_GT(line["kept_step"], 0) << method << to;
        EXPECT_FALSE(line.contains("kept_scale_step")) << method << to;
      }
    }
  }
}

TEST_F(LayerTrainingTest, IsNearerToTheSourceThanRounding) {
  QuantizeOptions options = Options("w3", "rounded");
  options.method = "rtn";
  options.layer_steps = 0;
  const double rounded = QuantizeModel(options).mean_kl;
  for (const char* method : {"autoround", "block_ap"}) {
    options = Options("w3", method, method);
    options.layer_steps = 60;
    options.batch = 2;
    EXPECT_LT(QuantizeModel(options).mean_kl, 0.8 * rounded) << method;
  }
}

// Behind each method, and both kinds of training behind each other.
TEST_F(LayerTrainingTest, ScalesAreTrainedBehindEveryMethod) {
  for (const char* method : {"rtn", "hqq", "gptq", "autoround"}) {
    QuantizeOptions options = Options("int4_asym", method);
    options.method = method;
    if (options.method != "autoround") options.layer_steps = 0;
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
    options.batch = 2;
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
  other.batch = 2;
  EXPECT_THROW(QuantizeModel(other), InputError);
  other = cut;
  other.layer_steps = 81;
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
          "want one of rtn, hqq, gptq, autoround, block_ap");
  refused([](QuantizeOptions& o) { o.block_ap.weight_lr = 1; }, "those of --method block_ap");
  const auto scales = [](QuantizeOptions& o) {
    o.method = "rtn";
    o.layer_steps = 0;
    o.scale_steps = 10;
  };
  refused([&](QuantizeOptions& o) { scales(o), o.calibration = ""; }, "--scale-steps needs");
  refused([&](QuantizeOptions& o) { scales(o), o.to = "mxfp4"; }, "integer codes");
  refused([&](QuantizeOptions& o) { scales(o), o.to = "q4_0"; }, "for folders");
  refused([&](QuantizeOptions& o) { scales(o), o.scale_steps = 0, o.batch = 2; }, "leave it out");
}

}  // namespace
}  // namespace tern::ptq
