// One model in every file that can hold it: the packed weights are equal byte for byte, and the
// logits bit for bit, wherever the file keeps the same scale.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "kernels/ternary_pack/t2.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::ModelWeights;
using engine::TernaryMatrix;
using formats::GgmlType;

std::vector<float> Logits(ModelWeights weights) {
  const engine::Engine engine(std::move(weights), 1);
  return engine::Session(engine).Append(RandomTokens(9, engine.config().vocab_size, 31),
                                        engine::LogitsOf::kAll);
}

// Every matrix of the file is the model's, in the model's order of rows.
void ExpectPacked(const ModelWeights& weights, const TinyModel& model) {
  for (const auto& [name, want] : model.ternary) {
    const auto* found = std::get_if<TernaryMatrix>(&engine::LinearOf(weights, name));
    ASSERT_NE(found, nullptr) << name;
    HugePageVector<uint8_t> t2(found->t2.size());
    ASSERT_EQ(static_cast<int64_t>(want.codes.size()), found->n * found->k) << name;
    for (int64_t row = 0; row < found->n; ++row) {
      kernels::PackT2Row(want.codes.data() + row * found->k, found->k,
                         t2.data() + row * kernels::T2RowBytes(found->k));
    }
    EXPECT_EQ(found->t2, t2) << name;
  }
}

class ModelFilesTest : public ::testing::TestWithParam<ArchName> {
 protected:
  ModelWeights Gguf(const TinyModel& model, const GgufOptions& options = {}) {
    WriteGguf(model, GetParam(), folder_ / "model.gguf", options);
    return engine::LoadModel(folder_ / "model.gguf");
  }
  ModelWeights Folder(const TinyModel& model, const HfOptions& options) {
    const std::string folder = folder_ / StrCat("hf", ++folders_);
    WriteHfFolder(model, folder, options);
    return engine::LoadModel(folder);
  }

  TempFolder folder_;
  int folders_ = 0;
};

TEST_P(ModelFilesTest, EveryFileWithTheScaleItselfIsBitEqual) {
  const TinyModel model = MakeTinyModel(TinyConfig(GetParam()), 32);
  GgufOptions tq1, i2s;
  tq1.linear = GgmlType::kTq1_0;
  i2s.linear = GgmlType::kI2_S;
  i2s.activation = std::nullopt;  // Microsoft's files say nothing; their program has one way
  HfOptions multiply;
  multiply.linear_class = "autobitlinear";
  ModelWeights files[] = {Gguf(model), Gguf(model, tq1), Gguf(model, i2s), Folder(model, multiply)};
  const std::vector<float> want = Logits(Gguf(model));
  for (ModelWeights& weights : files) {
    SCOPED_TRACE(weights.source);
    ExpectPacked(weights, model);
    for (const auto& [name, matrix] : model.ternary)
      EXPECT_EQ(std::get<TernaryMatrix>(engine::LinearOf(weights, name)).scale, matrix.beta);
    EXPECT_EQ(weights.activation, engine::ActivationRule::kInt8Token);
    EXPECT_EQ(Logits(std::move(weights)), want);
  }
}

// Goal: the file keeps fl(1/beta), so the scale comes back within one ulp; and the logits are those
// of a model that has this scale, bit for bit.
TEST_P(ModelFilesTest, BitLinearIsBitEqualToTheModelWithItsScale) {
  TinyModel model = MakeTinyModel(TinyConfig(GetParam()), 33);
  ModelWeights weights = Folder(model, {});
  ExpectPacked(weights, model);
  for (auto& [name, matrix] : model.ternary) {
    const float scale = std::get<TernaryMatrix>(engine::LinearOf(weights, name)).scale;
    EXPECT_GE(scale, std::nextafter(matrix.beta, 0.0f)) << name;
    EXPECT_LE(scale, std::nextafter(matrix.beta, 1.0f)) << name;
    matrix.beta = scale;
  }
  EXPECT_EQ(Logits(std::move(weights)), Logits(Gguf(model)));
}

// Goal: config.json and the keys of GGUF say the same model; defaults do not differ.
TEST_P(ModelFilesTest, ConfigsAreEqual) {
  ModelConfig config = TinyConfig(GetParam());
  config.rope_theta = 500000.0f;
  config.norm_eps = 1e-6f;
  const TinyModel model = MakeTinyModel(config, 34);
  const ModelConfig gguf = Gguf(model).config;
  ModelConfig folder = Folder(model, {}).config;
  EXPECT_EQ(gguf.rope_theta, 500000.0f);
  EXPECT_EQ(gguf.norm_eps, 1e-6f);
  EXPECT_EQ(gguf.HeadDim(), config.HeadDim());
  EXPECT_EQ(gguf.num_kv_heads, config.num_kv_heads);
  EXPECT_EQ(gguf.tied_head, config.tied_head);
  EXPECT_EQ(gguf, folder);
}

TEST_P(ModelFilesTest, DenseFilesAreBitEqual) {
  const TinyModel model = MakeTinyModel(TinyConfig(GetParam(), LinearKind::kDense), 35);
  GgufOptions options;
  options.linear = GgmlType::kF32;
  EXPECT_EQ(Logits(Gguf(model, options)), Logits(Folder(model, {})));
}

// Goal: tables in half precision are those of the file, not of the model: rounding the model first
// gives the same bits.
TEST_P(ModelFilesTest, TablesInHalfPrecisionAreTheRoundedOnes) {
  TinyModel model = MakeTinyModel(TinyConfig(GetParam()), 36);
  GgufOptions half;
  half.table = GgmlType::kF16;
  const std::vector<float> found = Logits(Gguf(model, half));
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    const auto table = model.floats.find(name);
    if (table == model.floats.end()) continue;
    for (float& value : table->second) value = formats::Fp16ToFp32(formats::Fp32ToFp16(value));
  }
  EXPECT_EQ(found, Logits(Gguf(model)));
}

INSTANTIATE_TEST_SUITE_P(Archs, ModelFilesTest,
                         ::testing::Values(ArchName::kLlama, ArchName::kQwen3, ArchName::kBitnet,
                                           ArchName::kBitnet158));

// Goal: a ternary file of another program has its scale in the blocks and no word about
// activations: they stay floats.
TEST(ForeignFileTest, ScaleInTheBlocksAndFloatActivations) {
  TempFolder folder;
  TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama), 37);
  for (auto& [name, matrix] : model.ternary) {
    matrix.beta = 0.03125f;  // fp16 holds it
    matrix.codes[0] = 1;     // Every matrix has its largest value
  }
  GgufOptions ours;
  ours.activation = "none";
  WriteGguf(model, ArchName::kLlama, folder / "ours.gguf", ours);

  TinyModel floats = model;
  floats.ternary.clear();
  for (const auto& [name, matrix] : model.ternary) {
    for (const int8_t code : matrix.codes)
      floats.floats[name].push_back(static_cast<float>(code) * matrix.beta);
  }
  GgufOptions foreign;  // EncodeRow puts d = max|w| in each block
  foreign.activation = std::nullopt;
  WriteGguf(floats, ArchName::kLlama, folder / "foreign.gguf", foreign);
  ModelWeights weights = engine::LoadModel(folder / "foreign.gguf");
  EXPECT_EQ(weights.activation, engine::ActivationRule::kNone);
  ExpectPacked(weights, model);
  EXPECT_EQ(Logits(std::move(weights)), Logits(engine::LoadModel(folder / "ours.gguf")));
}

}  // namespace
}  // namespace tern::testing
