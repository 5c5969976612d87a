// tern quantize to GGUF: types of the mixtures, blocks that are ggml's, importance there and back.
#include "ptq/quantize_gguf.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>
#include <sstream>

#include "arch/gguf_names.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/model_source.h"
#include "engine/weight_table.h"
#include "formats/gguf.h"
#include "ptq/gguf_mix.h"
#include "ptq/importance.h"
#include "tests/engine/tiny_files.h"
#include "tests/ptq/tiny_source.h"
#include "tests/testing/temp_folder.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using formats::GgmlType;
using testing::TempFolder;

ModelConfig Layers16() {
  ModelConfig c = testing::TinyConfig(ArchName::kLlama, LinearKind::kDense);
  c.num_layers = 16;
  return c;
}

// Layers in which the matrix has the type.
std::set<int64_t> LayersWith(const std::string& mix, const char* matrix, GgmlType type,
                             const GgufMixOptions& options = {}) {
  const ModelConfig config = Layers16();
  std::set<int64_t> layers;
  for (const ParameterSpec& spec : ParameterTable(config)) {
    if (spec.name.find(matrix) == std::string::npos) continue;
    if (ChooseGgufType(*GgufMixByName(mix), spec, config, options).type == type)
      layers.insert(std::stoll(spec.name.substr(std::string("model.layers.").size())));
  }
  return layers;
}

// Of 16 layers the first and last two, and between them every third: 4, 7, 10, 13.
TEST(GgufMixTest, TypesByLayer) {
  const std::set<int64_t> more = {0, 1, 4, 7, 10, 13, 14, 15};
  EXPECT_EQ(LayersWith("q4_k_m", "v_proj", GgmlType::kQ6_K), more);
  EXPECT_EQ(LayersWith("q4_k_m", "down_proj", GgmlType::kQ6_K), more);
  EXPECT_EQ(LayersWith("q5_k_m", "down_proj", GgmlType::kQ6_K), more);
  EXPECT_EQ(LayersWith("q4_k_m", "up_proj", GgmlType::kQ4_K).size(), 16u);
  EXPECT_EQ(LayersWith("q4_k_s", "v_proj", GgmlType::kQ5_K), (std::set<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(LayersWith("q4_k_s", "down_proj", GgmlType::kQ5_K), (std::set<int64_t>{0, 1}));
  EXPECT_EQ(LayersWith("q3_k_m", "v_proj", GgmlType::kQ5_K), (std::set<int64_t>{0, 1}));
  EXPECT_EQ(LayersWith("q3_k_m", "down_proj", GgmlType::kQ5_K), (std::set<int64_t>{0}));
  EXPECT_EQ(LayersWith("q3_k_m", "o_proj", GgmlType::kQ4_K).size(), 16u);
  EXPECT_EQ(LayersWith("q2_k", "v_proj", GgmlType::kQ3_K).size(), 16u);
  EXPECT_EQ(LayersWith("q2_k", "q_proj", GgmlType::kQ2_K).size(), 16u);
  EXPECT_EQ(LayersWith("q4_k_m", "v_proj", GgmlType::kQ4_K, {.pure = true}).size(), 16u);
  EXPECT_EQ(LayersWith("q4_0", "down_proj", GgmlType::kQ4_1, {.importance = true}),
            (std::set<int64_t>{0, 1}));
}

TEST(GgufMixTest, TablesAndRowsThatDoNotDivide) {
  ModelConfig config = Layers16();
  const auto type = [&](const char* mix, size_t index) {
    return ChooseGgufType(*GgufMixByName(mix), ParameterTable(config)[index], config);
  };
  const size_t head = ParameterTable(config).size() - 1;
  EXPECT_EQ(type("q4_k_m", 0).type, GgmlType::kQ4_K);
  EXPECT_EQ(type("q4_k_m", head).type, GgmlType::kQ6_K);
  EXPECT_EQ(type("q8_0", head).type, GgmlType::kQ8_0);
  config.tied_head = true;
  EXPECT_EQ(type("q2_k", 0).type, GgmlType::kQ6_K);
  const ParameterSpec narrow{"model.layers.9.mlp.up_proj.weight", {8, 96}, ParameterRole::kLinear};
  struct Fallback {
    const char* mix;
    GgmlType type;
  };
  for (const Fallback& f : {Fallback{"q2_k", GgmlType::kQ4_0},
                            {"q3_k_s", GgmlType::kQ4_0},
                            {"q4_k_s", GgmlType::kQ5_0},
                            {"q5_k_s", GgmlType::kQ5_1},
                            {"q6_k", GgmlType::kQ8_0}}) {
    const GgufTypeChoice choice = ChooseGgufType(*GgufMixByName(f.mix), narrow, config);
    EXPECT_EQ(choice.type, f.type) << f.mix;
    EXPECT_NE(choice.fallback.find("rows of 96"), std::string::npos);
  }
  const ParameterSpec odd{"model.layers.9.mlp.up_proj.weight", {8, 40}, ParameterRole::kLinear};
  EXPECT_EQ(ChooseGgufType(*GgufMixByName("q4_0"), odd, config).type, GgmlType::kF16);
}

class QuantizeGgufTest : public ::testing::Test {
 protected:
  QuantizeGgufTest() {
    WriteTinySource(folder_);
    options_ = TinyOptions(folder_, "q4_k_m", "out.gguf");
  }
  TempFolder folder_;
  QuantizeOptions options_;
};

// Blocks in the file's order of rows are the codec's of the model's rows, and the engine reads
// them.
TEST_F(QuantizeGgufTest, HoldsTheBlocksOfItsRows) {
  options_.calibration = folder_ / "text.idx";
  options_.method = "rtn";
  const QuantizeReport report = QuantizeModel(options_);
  EXPECT_EQ(report.matrices, 14);
  // Eight bits lose next to nothing; rows in another order would be another model.
  QuantizeOptions eight = options_;
  eight.to = "q8_0";
  eight.output = folder_ / "eight.gguf";
  EXPECT_LT(QuantizeModel(eight).mean_kl, 0.01);
  EXPECT_GT(report.mean_kl, 0.01);
  const auto source = engine::LoadModel(options_.source), out = engine::LoadModel(options_.output);
  for (const char* name :
       {"model.layers.1.self_attn.k_proj.weight", "model.layers.0.mlp.down_proj.weight"}) {
    const std::vector<float> x = engine::ValuesOf(engine::LinearOf(source, name)),
                             y = engine::ValuesOf(engine::LinearOf(out, name));
    const formats::GgufReader file(options_.output);
    const GgmlType type = file.Get(GgufName(name)).type;
    std::vector<uint8_t> row(static_cast<size_t>(formats::RowBytes(type, 256)));
    std::vector<float> want(256);
    for (size_t at = 0; at < x.size(); at += 256) {
      formats::EncodeRow(type, x.data() + at, 256, row.data());
      formats::DecodeRow(type, row.data(), 256, want.data());
      ASSERT_TRUE(std::equal(want.begin(), want.end(), y.begin() + static_cast<int64_t>(at)));
    }
  }
}

TEST_F(QuantizeGgufTest, ImportanceIsWrittenReadAndUsed) {
  options_.calibration = folder_ / "text.idx";
  options_.imatrix = folder_ / "imatrix.gguf";
  options_.to = "q3_k_s";
  const QuantizeReport first = QuantizeModel(options_);
  const Importance importance =
      ReadImportance(options_.imatrix, engine::OpenModel(options_.source)->config());
  EXPECT_EQ(importance.size(), 14u);
  const std::vector<float>& q = importance.at("model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(q, importance.at("model.layers.0.self_attn.v_proj.weight"));
  // Inputs behind an RMSNorm with gains about 1: their mean square is about 1.
  double mean = 0;
  for (const float value : q) mean += value / static_cast<double>(q.size());
  EXPECT_NEAR(mean, 1, 0.2);
  options_.output = folder_ / "again.gguf";
  options_.calibration = "";
  QuantizeModel(options_);
  EXPECT_TRUE(ReadFile(folder_ / "again.gguf") == ReadFile(folder_ / "out.gguf"));
  options_.output = folder_ / "plain.gguf";
  options_.imatrix = "";
  QuantizeModel(options_);
  EXPECT_FALSE(ReadFile(folder_ / "plain.gguf") == ReadFile(folder_ / "out.gguf"));
  EXPECT_GT(first.mean_kl, 0);
}

TEST_F(QuantizeGgufTest, RefusesWhatCannotBe) {
  const auto refused = [&](const auto& change, const std::string& words) {
    QuantizeOptions changed = options_;
    change(changed);
    try {
      QuantizeModel(changed);
      ADD_FAILURE() << "not refused: " << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
    EXPECT_FALSE(fs::exists(changed.output));
  };
  refused([](QuantizeOptions& o) { o.method = "gptq"; }, "GGUF has rtn and imatrix");
  refused([&](QuantizeOptions& o) { o.imatrix = folder_ / "none.gguf"; }, "does not exist");
  refused([&](QuantizeOptions& o) { o.calibration = folder_ / "text.idx", o.max_kl = 1e-9; },
          "the limit");
  QuantizeModel(options_);
  refused([&](QuantizeOptions& o) { o.source = options_.output, o.output = folder_ / "b.gguf"; },
          "--allow-requantize");
  try {
    QuantizeModel(options_);
    FAIL() << "the output exists";
  } catch (const InputError&) {
  }
}

}  // namespace
}  // namespace tern::ptq
