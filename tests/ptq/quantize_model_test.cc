// tern quantize on tiny models: the folder dequantizes to what the quantizer made, the passes give
// the decoder's numbers, work that is cut goes on to the same bytes, and bad input is refused.
#include "ptq/quantize_model.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "data/mapped_tokens.h"
#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/weight_table.h"
#include "formats/safetensors.h"
#include "ptq/block_pass.h"
#include "ptq/calibration.h"
#include "ptq/check.h"
#include "ptq/float_model.h"
#include "ptq/ledger.h"
#include "ptq/scheme.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"
#include "transfer/import.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using testing::MakeTinyModel;
using testing::RandomTokens;
using testing::TempFolder;
using testing::TinyConfig;

class QuantizeModelTest : public ::testing::Test {
 protected:
  QuantizeModelTest() { at::set_num_threads(1); }
  // A source folder of an architecture; options that calibrate on a JSONL of byte tokens.
  QuantizeOptions Options(ArchName arch = ArchName::kLlama) {
    testing::WriteHfFolder(MakeTinyModel(TinyConfig(arch, LinearKind::kDense), 3),
                           folder_ / "source", TypeOf(arch));
    QuantizeOptions options;
    options.source = folder_ / "source";
    options.output = folder_ / "out";
    options.sequence = 32;
    options.calibration_tokens = 320;
    options.threads = 1;
    options.min_max = true;  // The search is tested with the quantizers, and takes its time.
    return options;
  }
  static testing::HfOptions TypeOf(ArchName arch) {
    testing::HfOptions hf;
    if (arch == ArchName::kQwen2)
      hf.change_config = [](nlohmann::json& json) { json["model_type"] = "qwen2"; };
    return hf;
  }
  std::string Tokens(int64_t count, int64_t vocab = 40) {
    const std::vector<int32_t> ids = RandomTokens(count, vocab, 5);
    data::MegatronWriter writer(folder_ / "text", vocab);
    writer.AddDocument(ids.data(), count);
    writer.Commit();
    return folder_ / "text.idx";
  }
  TempFolder folder_;
};

// Every scheme and method: what the engine's reader decodes is what the ledger has the hash of
// (QuantizeModel checks it, and throws), and nothing but the matrices changes beyond bf16.
TEST_F(QuantizeModelTest, EverySchemeIsReadAgainAsItWasMade) {
  QuantizeOptions options = Options();
  const std::string tokens = Tokens(1000);
  for (const char* to :
       {"int4", "int4_asym", "w3", "w2", "int8", "fp8", "fp8_block", "nvfp4", "mxfp4"}) {
    for (const bool calibrated : {false, true}) {
      options.to = to;
      options.output = folder_ / StrCat(to, calibrated);
      options.calibration = calibrated ? tokens : "";
      const QuantizeReport report = QuantizeModel(options);
      EXPECT_EQ(report.matrices, 14) << to;
      EXPECT_EQ(report.fallbacks, 0) << to;
      EXPECT_EQ(report.kl_tokens, calibrated ? 32 : 0) << to;
      EXPECT_LE(report.error, report.error_rtn) << to;
      EXPECT_GT(report.error, 0) << to;
      EXPECT_FALSE(fs::exists(options.output + ".partial"));
      const auto ledger = ReadLedger(LedgerPath(options.output)).matrices;
      EXPECT_EQ(ledger.size(), 14u);
      EXPECT_EQ(ledger[0]["method"], calibrated ? "gptq" : "rtn");
    }
  }
}

TEST_F(QuantizeModelTest, EveryArchitecture) {
  for (const ArchName arch : {ArchName::kLlama, ArchName::kQwen2, ArchName::kQwen3}) {
    fs::remove_all(folder_ / "source");
    QuantizeOptions options = Options(arch);
    options.calibration = Tokens(1000);
    // 4 bits of such small models lose 0.005 to 0.21, as the machine's products are rounded; a
    // broken forward pass or layout loses more than 1. 8 bits have a sixteenth of the step and,
    // where all is well, about its square of the loss.
    for (const auto& [to, bound] : {std::pair("int4", 0.5), std::pair("w8", 0.01)}) {
      options.to = to;
      options.output = folder_ / StrCat(to, static_cast<int>(arch));
      const QuantizeReport report = QuantizeModel(options);
      EXPECT_LT(report.mean_kl, bound) << to;
      EXPECT_GT(report.mean_kl, 0) << to;
    }
  }
}

// The passes of calibration are the decoder's forward: their last residual stream, normed and
// multiplied with the head, gives its logits to the bit.
TEST_F(QuantizeModelTest, PassesAreTheDecodersForward) {
  const at::NoGradGuard no_grad;
  for (const ArchName arch : {ArchName::kLlama, ArchName::kQwen2, ArchName::kQwen3}) {
    fs::remove_all(folder_ / "source");
    const QuantizeOptions options = Options(arch);
    const model::Decoder decoder = transfer::OpenDecoder(options.source).decoder;
    FloatModel model(options.source, "", false);
    const Calibration calibration =
        ReadCalibration(Tokens(1000), "text", nullptr, 40, /*sequence=*/16, /*tokens=*/128);
    const ModelConfig& config = model.config();
    at::Tensor x_BTD = ActivationRoom().New({8, 16, 256});
    model.Embed(calibration.tokens_BT, x_BTD);
    const nn::RopeTables rope = nn::MakeRopeTables(16, config.HeadDim(), config.rope_theta);
    for (int64_t layer = 0; layer < config.num_layers; ++layer) {
      const std::string prefix = StrCat("model.layers.", layer, ".");
      BlockPass::Tensors tensors;
      for (const ParameterSpec& spec : ParameterTable(config))
        if (spec.name.starts_with(prefix))
          tensors[spec.name.substr(prefix.size())] = model.Read(spec);
      BlockPass pass(config, rope, tensors, x_BTD);
      for (const Step step : kSteps) {
        pass.Inputs(step, [](const at::Tensor&) {});
        pass.Finish(step);
      }
    }
    const at::Tensor hidden =
        nn::RmsNorm(x_BTD.view({-1, 256}), decoder.Get("model.norm.weight"), config.norm_eps);
    model::DecoderInput input;
    input.tokens_BT = calibration.tokens_BT;
    const at::Tensor want = decoder.Hidden(input, {});
    // Products of 16 and of 128 rows may add in another order: 256 terms, 2 layers, 2^-24 each.
    EXPECT_LT((hidden - want).abs().max().item<double>(), 1e-4) << static_cast<int>(arch);
  }
}

std::map<std::string, std::string> FilesOf(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    files[entry.path().filename().string()] = ReadFile(entry.path().string());
  return files;
}

// A process that ends behind the first layer, and one that ends while a layer is worked on.
TEST_F(QuantizeModelTest, GoesOnWhereItWasCut) {
  QuantizeOptions options = Options();
  options.calibration = Tokens(1000);
  QuantizeModel(options);
  struct Cut {};
  for (const int64_t at : {0, 1}) {
    QuantizeOptions cut = options;
    cut.output = folder_ / StrCat("cut", at);
    cut.progress = [at](int64_t layer, int64_t) {
      if (layer == at) throw Cut();
    };
    EXPECT_THROW(QuantizeModel(cut), Cut);
    EXPECT_FALSE(fs::exists(cut.output));
    std::vector<int64_t> worked;
    cut.progress = [&](int64_t layer, int64_t) { worked.push_back(layer); };
    QuantizeModel(cut);
    EXPECT_EQ(worked.front(), at);
    EXPECT_TRUE(FilesOf(cut.output) == FilesOf(options.output));
  }
}

TEST_F(QuantizeModelTest, WorkOfAnotherJobIsNotGoneOnWith) {
  QuantizeOptions options = Options();
  struct Cut {};
  options.progress = [](int64_t layer, int64_t) {
    if (layer == 1) throw Cut();
  };
  EXPECT_THROW(QuantizeModel(options), Cut);
  options.progress = nullptr;
  options.to = "int8";
  EXPECT_THROW(QuantizeModel(options), InputError);
  options.to = "int4";
  const std::string config = ReadFile(options.source + "/config.json");
  WriteFileAtomically(options.source + "/config.json", config + " ");
  EXPECT_THROW(QuantizeModel(options), InputError);  // The source is another.
  fs::remove_all(options.output + ".partial");
  EXPECT_NO_THROW(QuantizeModel(options));
  EXPECT_THROW(QuantizeModel(options), InputError);  // The output exists.
}

TEST_F(QuantizeModelTest, RefusesWhatCannotBe) {
  QuantizeOptions options = Options();
  int count = 0;
  const auto refused = [&](const auto& change, const std::string& words) {
    QuantizeOptions changed = options;
    changed.output = folder_ / StrCat("refused", ++count);
    change(changed);
    try {
      QuantizeModel(changed);
      ADD_FAILURE() << "not refused: " << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
    EXPECT_FALSE(fs::exists(changed.output)) << words;
  };
  refused([](QuantizeOptions& o) { o.group = 96; }, "groups that fit: 256, 128, 64");
  refused([](QuantizeOptions& o) { o.to = "int5"; }, "want one of int4");
  refused([](QuantizeOptions& o) { o.to = "fp8", o.group = 64; }, "has its own");
  refused([](QuantizeOptions& o) { o.method = "gptq"; }, "needs --calibration");
  refused([&](QuantizeOptions& o) { o.calibration = Tokens(200); }, "want at least 288");
  refused([&](QuantizeOptions& o) { o.calibration = Tokens(1000), o.max_kl = 1e-9; }, "the limit");
  QuantizeOptions once = options;
  once.output = folder_ / "once";
  QuantizeModel(once);
  refused([&](QuantizeOptions& o) { o.source = once.output; }, "--allow-requantize");
  once.source = once.output;
  once.output = folder_ / "twice";
  once.allow_requantize = true;
  EXPECT_NO_THROW(QuantizeModel(once));
}

// transformers and vLLM fail when 128 inputs that share a scale do not fill a row.
TEST(SchemeTest, Fp8BlocksFillTheRows) {
  ModelConfig config = TinyConfig(ArchName::kLlama, LinearKind::kDense);
  EXPECT_NO_THROW(SchemeByName("fp8_block", -1, config));
  config.intermediate_size = 192;
  EXPECT_THROW(SchemeByName("fp8_block", -1, config), InputError);
  EXPECT_NO_THROW(SchemeByName("fp8", -1, config));
}

// Columns of very different size: scaling them first loses less of the outputs, and what is folded
// into the norms keeps the model: int8 is still near to its source.
TEST_F(QuantizeModelTest, ChannelScalesLoseLess) {
  QuantizeOptions options = Options();
  testing::TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama, LinearKind::kDense), 4);
  for (auto& [name, values] : model.floats) {
    if (name.find("layernorm") == std::string::npos) continue;
    for (size_t i = 0; i < values.size(); i += 37) values[i] *= 8;
  }
  fs::remove_all(options.source);
  testing::WriteHfFolder(model, options.source);
  options.calibration = Tokens(1000);
  options.method = "rtn";
  const auto error_of_q = [&](const char* to, bool scaled) {
    options.to = to;
    options.channel_scales = scaled;
    options.output = folder_ / StrCat(to, scaled);
    const QuantizeReport report = QuantizeModel(options);
    if (options.to == "int8") {
      EXPECT_LT(report.mean_kl, 0.02) << scaled;
    }
    const nlohmann::json line = ReadLedger(LedgerPath(options.output)).matrices[0];
    EXPECT_EQ(line["tensor"], "model.layers.0.self_attn.q_proj.weight");
    EXPECT_EQ(line.contains("channel_exponent"), scaled);
    return line["error"].get<double>();
  };
  EXPECT_LT(error_of_q("int4", true), 0.8 * error_of_q("int4", false));
  error_of_q("int8", true);
}

// A folder that was changed behind the quantizer's back.
TEST_F(QuantizeModelTest, ChangedValuesAreFound) {
  const QuantizeOptions options = Options();
  QuantizeModel(options);
  const std::vector<nlohmann::json> ledger = ReadLedger(LedgerPath(options.output)).matrices;
  EXPECT_EQ(CheckValues(options.output, ledger), 14);
  const std::string file = options.output + "/model.safetensors";
  const formats::SafetensorsReader reader(file);
  const auto bytes = reader.Get("model.layers.1.mlp.up_proj.weight_packed").bytes;
  std::string all = ReadFile(file);
  const std::string needle(reinterpret_cast<const char*>(bytes.data()), 64);
  all[all.find(needle) + 5] ^= 0x10;
  WriteFileAtomically(file, all);
  try {
    CheckValues(options.output, ledger);
    FAIL() << "a flipped bit was not found";
  } catch (const NumericError& error) {
    EXPECT_NE(std::string(error.what()).find("model.layers.1.mlp.up_proj"), std::string::npos);
  }
}

}  // namespace
}  // namespace tern::ptq
