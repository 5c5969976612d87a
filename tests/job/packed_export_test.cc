// Exports of models that were trained with fake quantizers: the file has the codes, scales and
// input rounding of the training.
#include "ptq/packed_export.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <nlohmann/json.hpp>

#include "arch/format_names.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "engine/model_source.h"
#include "ptq/traps.h"
#include "qat/quantized_model.h"
#include "tests/job/qat_run.h"
#include "transfer/export.h"
#include "transfer/import.h"
#include "transfer/verify.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;

// Every quantizer whose levels a packed format has, ships as the codes and scales of the training:
// the re-read matrices are the trainer's, so logits differ by the order of sums alone.
class PackedExportTest : public QatTest, public ::testing::WithParamInterface<const char*> {
 protected:
  // `file`: below exports/small-, the one that `weights` are in: a part of it, or itself.
  static void ExpectShipsTheCodes(const SmallRun& run, const std::string& format,
                                  const std::string& file, const std::string& weights) {
    Run(run, {std::string("train.quantize.rules=") + GetParam(), "train.steps=4",
              StrCat("export.formats=[", format, ", hf/f32]")});
    const nlohmann::json files = run.Result("verify")["files"];
    EXPECT_EQ(files[0]["bound_mean_kl"], 1e-6);
    EXPECT_LT(files[0]["mean_kl"].get<double>(), 1e-6);
    const std::string path = run.Path("exports/small-" + file);
    const auto packed = transfer::OpenDecoder(path);
    const auto exact = transfer::OpenDecoder(run.Path("exports/small-hf-f32"));
    for (const model::Parameter& parameter : exact.decoder.parameters()) {
      if (parameter.spec.role == ParameterRole::kEmbedding) continue;  // BF16, F16
      EXPECT_TRUE(at::equal(packed.decoder.Get(parameter.spec.name), parameter.value))
          << parameter.spec.name;
    }
    EXPECT_LT(fs::file_size(path + weights),
              fs::file_size(run.Path("exports/small-hf-f32/model.safetensors")) / 2);
    ptq::CheckTraps(path);  // Such as global scales that engines fuse
  }
};

TEST_P(PackedExportTest, ShipsTheCodesOfTheTraining) {
  ExpectShipsTheCodes(SmallRun(Tuned()), "hf/compressed_tensors", "hf-compressed_tensors",
                      "/model.safetensors");
}

INSTANTIATE_TEST_SUITE_P(
    Rules, PackedExportTest,
    ::testing::Values(
        "{a: {weights: int8, group: 0}}", "{a: {weights: int4, group: 32}}",
        "{a: {weights: int4, group: 64, symmetric: false}}",
        "{a: {weights: int3, group: 32, symmetric: false}}",
        "{a: {weights: lsq4, group: 32}, b: {layers: [up_proj], weights: seq2, group: "
        "64}, c: {layers: [o_proj], weights: sign, group: 16}}",
        "{a: {weights: int2, group: 16}}", "{a: {weights: fp8}}", "{a: {weights: fp8_block}}",
        "{a: {weights: fp8_tensor}}", "{a: {weights: nvfp4}}", "{a: {weights: mxfp4}}",
        "{a: {weights: lsq8}}", "{a: {weights: lsq4}}", "{a: {weights: lsq3}}",
        "{a: {weights: seq2}}", "{a: {weights: sign}}",
        // Groups that only their scales tell apart, and layers without a rule.
        "{a: {weights: int3, group: 32}, b: {layers: [o_proj], weights: lsq3}, c: "
        "{layers: [q_proj], weights: int3, group: 32, symmetric: false}}",
        "{a: {weights: nvfp4}, b: {layers: [down_proj], weights: mxfp4}, c: {layers: "
        "[q_proj], weights: fp8}, d: {layers: [k_proj], weights: none}}",
        "{a: {weights: int4, group: 32}, b: {layers: [down_proj], weights: lsq4}}"));

class PackedGgufTest : public PackedExportTest {};

// llama.cpp's blocks hold the codes of the training, and no other format claims them.
TEST_P(PackedGgufTest, ShipsTheCodesOfTheTraining) {
  const SmallRun run(Tuned());
  ExpectShipsTheCodes(run, "gguf/quantized", "quantized.gguf", "");
  const checkpoint::CheckpointReader reader(run.Path("train/step-00000004"));
  EXPECT_THROW(ptq::ExportPacked(reader, qat::LoadShipped(reader), {},
                                 {std::string(kPackedFormat), "", "other"}, run.Path("other")),
               RecipeError);
}

INSTANTIATE_TEST_SUITE_P(Rules, PackedGgufTest,
                         ::testing::Values("{a: {weights: q4_0}}", "{a: {weights: q8_0}}",
                                           "{a: {weights: q4_0}, b: {layers: [down_proj], weights: "
                                           "q8_0}, c: {layers: [k_proj], weights: none}}"));

// Weights and inputs of 8 bits: the folder asks for the rounding of the training, and an engine
// that does it has the trainer's logits.
class RoundedInputsTest : public QatTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(RoundedInputsTest, ShipAsTheyWereTrained) {
  const SmallRun run(Tuned() + "  - generate: {prompt: 'a', tokens: 4}\n");
  Run(run, {std::string("train.quantize.rules=") + GetParam(), "train.steps=4",
            "export.formats=[hf/compressed_tensors]"});
  // What the stage's evaluation saw is what the eval stage sees.
  EXPECT_NEAR(run.Result("eval")["loss"].get<double>(),
              run.Result("train")["validation_loss"].get<double>(), 1e-5);
  const nlohmann::json file = run.Result("verify")["files"][0];
  const auto kl = file["mean_kl"].get<double>();
  EXPECT_LE(kl, file["bound_mean_kl"].get<double>());

  const std::string path = run.Path("exports/small-hf-compressed_tensors");
  const model::Decoder shipped =
      qat::LoadShipped(checkpoint::CheckpointReader(run.Path("train/step-00000004")));
  ASSERT_FALSE(shipped.inputs().empty());
  const engine::ModelWeights weights = engine::LoadModel(path);
  transfer::CompareWeights(shipped, weights, std::string(kPackedFormat));
  // Without the rounding, on either side, it is another model.
  const std::vector<int32_t> tokens = {3, 9, 1, 20, 7, 40, 11, 2, 50, 60, 33, 21, 5, 8, 13, 90};
  const transfer::LogitsReport plain =
      transfer::CompareLogits(shipped.WithInputs({}), engine::LoadModel(path), tokens, 1, 1.0);
  const transfer::LogitsReport rounded =
      transfer::CompareLogits(shipped, engine::LoadModel(path), tokens, 1, transfer::kMaxMeanKl);
  EXPECT_LT(plain.mean_kl, 1e-6);  // Nothing is rounded on either side
  // One input on a boundary moves others behind it, at most until both sides have errors of
  // rounding that know nothing of each other: twice what the rounding changes, and twice as much
  // again for 16 tokens.
  const at::NoGradGuard no_grad;
  const model::DecoderInput input{at::tensor(tokens, at::kInt).to(at::kLong).view({1, -1}), {}, {}};
  const double changed =
      transfer::KlOfRows(shipped.Logits(input, {}), shipped.WithInputs({}).Logits(input, {}))
          .mean()
          .item<double>();
  EXPECT_GT(changed, 1e-9);
  EXPECT_LT(rounded.mean_kl, 4 * changed);
  EXPECT_THROW(transfer::CompareWeights(shipped.WithInputs({}), weights, "hf/f32"), NumericError);
  ptq::CheckTraps(path);
}

INSTANTIATE_TEST_SUITE_P(
    Rules, RoundedInputsTest,
    ::testing::Values(
        "{a: {weights: int8, group: 0, inputs: int8_dynamic}}",
        "{a: {weights: lsq8, inputs: int8_dynamic}}", "{a: {weights: fp8, inputs: fp8_dynamic}}",
        "{a: {weights: fp8_tensor, inputs: fp8_dynamic}}",
        // Groups that differ in the inputs, in the weights, and layers without.
        "{a: {weights: int8, group: 0, inputs: int8_dynamic}, b: {layers: [down_proj], "
        "weights: int8, group: 0}, c: {layers: [o_proj], weights: fp8, inputs: "
        "fp8_dynamic}, d: {layers: [k_proj], weights: int4, group: 32}, e: {layers: "
        "[q_proj], weights: none}}"));

using RoundedInputsFolderTest = QatTest;

// A folder says of every group what it asks of the inputs, in the words of the package.
TEST_F(RoundedInputsFolderTest, AsksForTheInputsOfTheTraining) {
  const SmallRun run(Tuned());
  Run(run, {"train.quantize.rules={a: {weights: int8, group: 0, inputs: int8_dynamic}, b: {layers: "
            "[down_proj], weights: int8, group: 0}}",
            "train.steps=2", "export.formats=[hf/compressed_tensors]"});
  const std::string path = run.Path("exports/small-hf-compressed_tensors");
  const auto config = nlohmann::json::parse(ReadFile(path + "/config.json"));
  const nlohmann::json& groups = config["quantization_config"]["config_groups"];
  ASSERT_EQ(groups.size(), 2u);
  const nlohmann::json want = {{"num_bits", 8},
                               {"type", "int"},
                               {"symmetric", true},
                               {"strategy", "token"},
                               {"dynamic", true}};
  for (const auto& [name, group] : groups.items()) {
    const bool down = group["targets"][0].get<std::string>().ends_with("down_proj");
    EXPECT_EQ(group["targets"].size(), down ? 2u : 12u);
    EXPECT_EQ(group["format"], down ? "pack-quantized" : "int-quantized");
    EXPECT_EQ(group["input_activations"], down ? nlohmann::json() : want) << name;
  }
  // A file that has lost the key is not what was trained.
  std::string text = ReadFile(path + "/config.json");
  text.replace(text.find("\"token\""), 7, "\"group\", \"group_size\": 64");
  WriteFileAtomically(path + "/config.json", text);
  const model::Decoder shipped =
      qat::LoadShipped(checkpoint::CheckpointReader(run.Path("train/step-00000002")));
  EXPECT_THROW(
      transfer::CompareWeights(shipped, engine::LoadModel(path), std::string(kPackedFormat)),
      NumericError);
  // The trainer's checks of a checkpoint are those of a recipe.
  EXPECT_THROW(transfer::Export(shipped, {}, {"hf/f32", "", "other"}, run.Path("other")),
               RecipeError);
}

}  // namespace
}  // namespace tern::job
