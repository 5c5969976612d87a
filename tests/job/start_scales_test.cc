// Training that goes on from what `tern quantize` made: with its very scales, to the same bits
// across a stop, and shipped with them.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "ptq/quantize_model.h"
#include "qat/quantized_model.h"
#include "quant/grid_scales.h"
#include "tests/job/dense_run.h"
#include "transfer/import.h"

namespace tern::job {
namespace {

constexpr const char* kTuned = R"(name: small
model: {from: QUANTIZED}
teacher: {from: MODEL}
data: {files: [TEXTS/*.txt], validation_fraction: 0.2}
stages:
  - train: {steps: 4, tokens_per_step: 256, sequence_length: 32, precision: fp32, eval_tokens: 0,
            eval_every: 0, checkpoint_every: 2, optimizer: {weight_decay: 0},
            schedule: {kind: constant, peak_lr: 2.0e-2},
            losses: {cross_entropy: {weight: 0}, forward_kl: {weight: 1}}}
  - eval: {perplexity: {split: validation}, recovery: true}
  - export: {formats: [hf/compressed_tensors]}
  - verify: {tokens: 16}
)";

// The dense model quantized, made once for each format.
std::string Quantized(const std::string& to) {
  static const testing::TempFolder folder;
  ptq::QuantizeOptions options;
  options.source = DenseModel();
  options.output = folder / to;
  options.to = to;
  options.group = 32;
  if (!std::filesystem::exists(options.output)) ptq::QuantizeModel(options);
  return options.output;
}

std::string Tuned(const std::string& start) {
  std::string yaml = kTuned;
  yaml.replace(yaml.find("QUANTIZED"), 9, start);
  return yaml.replace(yaml.find("MODEL"), 5, DenseModel());
}

void Train(const SmallRun& run, const std::vector<std::string>& overrides) {
  RunRecipe(run.Load(overrides), {run.runs(), "", ""});
}

class StartScalesTest : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

INSTANTIATE_TEST_SUITE_P(
    Formats, StartScalesTest,
    ::testing::Values(
        std::pair{"int4", "{a: {weights: int4, group: 32, scales: start}}"},
        std::pair{"w2_asym", "{a: {weights: int2, group: 32, symmetric: false, scales: start}}"}));

TEST_P(StartScalesTest, AreThoseOfTheQuantizedModelUpToTheExport) {
  const auto [to, rules] = GetParam();
  const std::string start = Quantized(to);
  const SmallRun whole(Tuned(start)), cut(Tuned(start));
  const std::string key = std::string("train.quantize.rules=") + rules;
  Train(whole, {key});
  Train(cut, {key, "train.steps=2"});
  Train(cut, {key});
  const checkpoint::CheckpointReader reader(whole.Path("train/step-00000004")),
      resumed(cut.Path("train/step-00000004"));
  const auto codes = qat::LoadCodes(reader), other = qat::LoadCodes(resumed);
  const auto opened = transfer::OpenDecoder(start);
  int64_t moved = 0;
  ASSERT_EQ(codes.size(), 14u);
  for (const auto& [name, q] : codes) {
    const at::Tensor value_NK = opened.decoder.Get(name).detach();
    const auto found = quant::ScalesOnGrid(value_NK, q.format);
    ASSERT_TRUE(found.has_value());
    EXPECT_TRUE(at::equal(q.scales.scale_RC, found->scale_RC)) << name;
    EXPECT_EQ(q.scales.zero_RC.defined(), !q.format.symmetric);
    EXPECT_TRUE(at::equal(q.codes_NK, other.at(name).codes_NK)) << name;
    moved += !at::equal(quant::Dequantize(q), value_NK);
  }
  EXPECT_GT(moved, 0) << "no code changed in four steps";
  const nlohmann::json verified = whole.Result("verify")["files"][0];
  EXPECT_LT(verified["mean_kl"].get<double>(), 1e-6);
}

// Untrained, it is the quantized model: with scales of its own it would be another one.
TEST_P(StartScalesTest, TheStartIsWhatWasQuantized) {
  const auto [to, rules] = GetParam();
  const std::string start = Quantized(to);
  const SmallRun run(Tuned(start));
  Train(run, {std::string("train.quantize.rules=") + rules, "train.steps=1",
              "train.schedule.peak_lr=1e-10"});
  const auto opened = transfer::OpenDecoder(start);
  const model::Decoder shipped =
      qat::LoadShipped(checkpoint::CheckpointReader(run.Path("train/step-00000001")));
  for (const model::Parameter& parameter : opened.decoder.parameters()) {
    if (parameter.spec.role != ParameterRole::kLinear) continue;
    EXPECT_TRUE(at::equal(shipped.Get(parameter.spec.name), parameter.value))
        << parameter.spec.name;
  }
}

TEST(StartScalesRefusalTest, SaysWhatItNeeds) {
  const auto refused = [](const std::string& start, const std::vector<std::string>& overrides) {
    const SmallRun run(Tuned(start));
    try {
      Train(run, overrides);
    } catch (const RecipeError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const std::string four = "train.quantize.rules={a: {weights: int4, group: 32, scales: start}}";
  EXPECT_NE(refused(DenseModel(), {four}).find("holds no int4"), std::string::npos);
  EXPECT_NE(refused(Quantized("int4"), {four, "train.quantize.progressive=[int8]"})
                .find("beside progressive"),
            std::string::npos);
  EXPECT_NE(refused(Quantized("int4"), {"train.quantize.rules={a: {weights: fp8, scales: start}}"})
                .find("not int8 to int2"),
            std::string::npos);
}

}  // namespace
}  // namespace tern::job
