// Models of others as decoders: latents of packed ternary matrices quantize to exactly their codes
// and scale, and what is exported and read again is the same model.
#include "transfer/import.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "engine/model_file.h"
#include "kernels/ternary_pack/t2.h"
#include "quant/ternary.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"
#include "transfer/export.h"
#include "transfer/verify.h"

namespace tern::transfer {
namespace {

using testing::TempFolder;
using testing::TinyModel;

engine::TernaryMatrix RandomTernary(int64_t n, int64_t k, double density, float scale,
                                    uint64_t seed) {
  RandomStream random(seed, "ternary");
  engine::TernaryMatrix matrix;
  matrix.n = n;
  matrix.k = k;
  matrix.scale = scale;
  matrix.t2.resize(static_cast<size_t>(n * kernels::T2RowBytes(k)));
  std::vector<int8_t> row(static_cast<size_t>(k));
  for (int64_t i = 0; i < n; ++i) {
    for (int8_t& code : row)
      code = random.NextUniform() < density ? (random.NextU64() % 2 == 0 ? 1 : -1) : 0;
    kernels::PackT2Row(row.data(), k, matrix.t2.data() + i * kernels::T2RowBytes(k));
  }
  return matrix;
}

TEST(LatentsTest, QuantizeToTheSameCodesAndScale) {
  uint64_t seed = 0;
  for (const auto& [n, k] :
       {std::pair<int64_t, int64_t>{1, 20000}, {317, 200}, {256, 1024}, {700, 640}}) {
    for (const double density : {0.1, 0.65, 1.0}) {
      for (const float scale : {0.0173f, 1.21875f}) {
        engine::TernaryMatrix matrix = RandomTernary(n, k, density, scale, ++seed);
        std::vector<int8_t> row(static_cast<size_t>(k));
        kernels::UnpackT2Row(matrix.t2.data(), k, row.data());
        row[0] = 1;  // All zeros have the floor as their scale, whatever is wanted
        kernels::PackT2Row(row.data(), k, matrix.t2.data());
        const quant::TernaryWeight q = quant::QuantizeTernary(LatentsOf(matrix));
        ASSERT_EQ(q.beta, matrix.scale) << n << " x " << k << ", " << density << ", " << scale;
        ASSERT_EQ(
            std::memcmp(q.t2_NC.const_data_ptr<uint8_t>(), matrix.t2.data(), matrix.t2.size()), 0);
      }
    }
  }
}

TEST(LatentsTest, ZerosHaveTheFloorOrNone) {
  EXPECT_NO_THROW(LatentsOf(RandomTernary(8, 8, 0, 1e-5f, 1)));
  EXPECT_THROW(LatentsOf(RandomTernary(8, 8, 0, 0.5f, 1)), NumericError);
}

class ImportTest : public ::testing::TestWithParam<std::pair<ArchName, LinearKind>> {};

// Folder -> decoder -> every format -> decoder: the parameters of a dense model are equal where the
// format holds fp32; a ternary one has equal codes and scales.
TEST_P(ImportTest, ExportsAndReadsTheSameModel) {
  const at::NoGradGuard no_grad;
  const auto [arch, linear] = GetParam();
  TempFolder folder;
  const TinyModel model = testing::MakeTinyModel(testing::TinyConfig(arch, linear), 21);
  testing::HfOptions options;
  if (arch == ArchName::kQwen2)
    options.change_config = [](nlohmann::json& json) { json["model_type"] = "qwen2"; };
  testing::WriteHfFolder(model, folder / "source", options);
  WriteFileAtomically(folder / "source/chat_template.jinja", "{{ messages }}");
  const OpenedModel opened = OpenDecoder(folder / "source");
  const bool ternary = linear == LinearKind::kBitLinear;
  int formats = 0;
  for (const char* format :
       {"gguf/f32", "hf/f32", "hf/f16", "gguf/bf16", "gguf/tq2_0", "hf/bitnet", "hf/autobitnet"}) {
    if (!WhyFormatCannotHold(opened.decoder.config(), format).empty()) continue;
    ++formats;
    const std::string path = folder / ExportName("model", format);
    Export(opened.decoder, {nullptr, opened.files}, {format, "f32", "model"}, path);
    const OpenedModel again = OpenDecoder(path);
    ModelConfig config = again.decoder.config();
    config.init_std = opened.decoder.config().init_std;
    EXPECT_EQ(config.head_dim, opened.decoder.config().HeadDim());
    config.head_dim = opened.decoder.config().head_dim;
    EXPECT_EQ(config, opened.decoder.config()) << format;
    EXPECT_EQ(again.files.at("chat_template.jinja"), "{{ messages }}") << format;
    for (size_t i = 0; i < opened.decoder.parameters().size(); ++i) {
      const at::Tensor want = opened.decoder.parameters()[i].value,
                       found = again.decoder.parameters()[i].value;
      if (ternary && opened.decoder.parameters()[i].spec.role == ParameterRole::kLinear) {
        const float beta = quant::QuantizeTernary(want).beta;
        const bool inverse = std::string(format) == "hf/bitnet";
        EXPECT_EQ(quant::QuantizeTernary(found).beta, inverse ? 1 / (1 / beta) : beta);
      } else if (std::string(format).ends_with("/f32")) {
        EXPECT_TRUE(at::equal(want, found)) << format;
      }
    }
  }
  EXPECT_GE(formats, ternary ? 2 : 4);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ImportTest,
                         ::testing::Values(std::pair(ArchName::kLlama, LinearKind::kDense),
                                           std::pair(ArchName::kQwen2, LinearKind::kDense),
                                           std::pair(ArchName::kQwen3, LinearKind::kDense),
                                           std::pair(ArchName::kLlama, LinearKind::kBitLinear),
                                           std::pair(ArchName::kBitnet, LinearKind::kBitLinear)));

// A scale that went through hf/bitnet as its inverse is the decoder's still, and no other is.
TEST(ModelFileExportTest, ScalesOfAFolderThatHoldsInverses) {
  const at::NoGradGuard no_grad;
  TempFolder folder;
  model::Decoder decoder(testing::TinyConfig(ArchName::kBitnet));
  decoder.Initialize(3);
  Export(decoder, {}, {"hf/bitnet", "", "model"}, folder / "hf");
  engine::WriteModelFile(*engine::OpenModel(folder / "hf"), folder / "model.h5");
  engine::ModelWeights weights = engine::LoadModel(folder / "model.h5");
  EXPECT_NO_THROW(CompareWeights(decoder, weights, ""));
  for (engine::LayerWeights& layer : weights.layers)
    std::get<engine::TernaryMatrix>(layer.up).scale *= 1 + 0x1p-20f;
  EXPECT_THROW(CompareWeights(decoder, weights, ""), NumericError);
}

// Every placement of norms, through tern's own file: the same parameters, the same logits, and the
// tables in the type that was asked for.
TEST(ModelFileExportTest, EveryPlacementOfNorms) {
  const at::NoGradGuard no_grad;
  TempFolder folder;
  for (const SubNorms sub_norms :
       {SubNorms::kNone, SubNorms::kOutputs, SubNorms::kEveryLinear, SubNorms::kEveryLinearOnly}) {
    for (const LinearKind linear : {LinearKind::kBitLinear, LinearKind::kDense}) {
      SCOPED_TRACE(StrCat(ToString(sub_norms), " ", ToString(linear)));
      ModelConfig config = testing::TinyConfig(ArchName::kLlama, linear);
      config.sub_norms = sub_norms;
      model::Decoder decoder(config);
      decoder.Initialize(3);
      for (const model::Parameter& parameter : decoder.parameters())
        if (parameter.spec.role == ParameterRole::kNorm) parameter.value.uniform_(0.5, 2);
      std::vector<std::string> formats = {"tern/model"};
      if (WhyFormatCannotHold(config, "hf/bitnet").empty()) formats.push_back("hf/bitnet");
      EXPECT_EQ(formats.size() == 2,
                linear == LinearKind::kBitLinear && sub_norms != SubNorms::kEveryLinearOnly);
      for (const std::string& format : formats) {
        const std::string path = folder / ExportName("model", format);
        for (const char* table : {"f32", "f16", "q8_0"}) {
          if (format != "tern/model" && table != std::string("f32")) continue;
          Export(decoder, {}, {format, table, "model"}, path);
          const OpenedModel again = OpenDecoder(path);
          EXPECT_EQ(again.decoder.config().sub_norms, sub_norms);
          const LogitsReport report =
              CompareLogits(decoder, engine::LoadModel(path), {3, 9, 1, 20, 7, 30}, 1);
          EXPECT_LE(report.mean_kl, report.bound_mean_kl);
          EXPECT_EQ(again.decoder.Get("model.norm.weight").equal(decoder.Get("model.norm.weight")),
                    true);
        }
      }
    }
  }
}

// A ternary file whose activations are floats is what its dequantized matrices compute.
// A decoder has no sliding attention: within the window it computes the same.
TEST(ImportTest, AWindowShortensTheContextOfDecoders) {
  TempFolder folder;
  testing::HfOptions options;
  options.change_config = [](nlohmann::json& json) {
    json.update({{"model_type", "mistral"}, {"sliding_window", 24}});
  };
  const TinyModel model =
      testing::MakeTinyModel(testing::TinyConfig(ArchName::kLlama, LinearKind::kDense), 23);
  testing::WriteHfFolder(model, folder / "slides", options);
  ASSERT_EQ(engine::OpenModel(folder / "slides")->config().context_length, 300);
  for (const ModelConfig& config :
       {ReadModelInfo(folder / "slides").config, OpenDecoder(folder / "slides").decoder.config()}) {
    EXPECT_EQ(config.context_length, 24);
    EXPECT_TRUE(config.attention_windows.empty());
  }
}

TEST(ImportTest, TernaryWeightsWithFloatActivationsBecomeDense) {
  TempFolder folder;
  const TinyModel model = testing::MakeTinyModel(testing::TinyConfig(ArchName::kLlama), 22);
  testing::GgufOptions options;
  options.activation = "none";
  testing::WriteGguf(model, ArchName::kLlama, folder / "model.gguf", options);
  const OpenedModel opened = OpenDecoder(folder / "model.gguf");
  EXPECT_EQ(opened.decoder.config().linear, LinearKind::kDense);
  engine::ModelWeights weights = engine::LoadModel(folder / "model.gguf");
  const LogitsReport report = CompareLogits(opened.decoder, std::move(weights), {3, 9, 1, 20}, 1);
  EXPECT_LT(report.mean_kl, 1e-9);
}

// With no bound of its own a ternary model is held to what its last bits do: the engine is within,
// one whose gains are a tenth larger is not.
TEST(ImportTest, LogitsOfTernaryModelsAreHeldToWhatLastBitsDo) {
  const at::NoGradGuard no_grad;
  TempFolder folder;
  testing::WriteGguf(testing::MakeTinyModel(testing::TinyConfig(ArchName::kBitnet), 22),
                     ArchName::kBitnet, folder / "model.gguf");
  const OpenedModel opened = OpenDecoder(folder / "model.gguf");
  // So many that on both sides some activations fall the other way: of 5e5 of them, each within
  // 127 * 1e-7 of a boundary, a dozen. Of few tokens none does, and sums in another order decide.
  const std::vector<int32_t> tokens =
      testing::RandomTokens(256, opened.decoder.config().vocab_size, 5);
  const LogitsReport report =
      CompareLogits(opened.decoder, engine::LoadModel(folder / "model.gguf"), tokens, 1, 0);
  EXPECT_GT(report.bound_mean_kl, 0);
  EXPECT_LE(report.mean_kl, report.bound_mean_kl);
  engine::ModelWeights other = engine::LoadModel(folder / "model.gguf");
  for (float& gain : other.final_norm) gain *= 1.1f;
  EXPECT_THROW(CompareLogits(opened.decoder, std::move(other), tokens, 1, 0), NumericError);
}

}  // namespace
}  // namespace tern::transfer
