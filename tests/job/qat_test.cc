// Quantization-aware fine-tuning of a dense model through whole recipes: what is trained is what is
// evaluated, shipped and verified.
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "job/run_table.h"
#include "metrics/metrics_log.h"
#include "model/checkpoint_io.h"
#include "qat/quantized_model.h"
#include "tests/job/qat_run.h"
#include "transfer/import.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;

// The export holds the quantized values: the file's matrices are their own quantization. Distinct
// values of a group of 32 are at most 16 at 4 bits.
TEST_F(QatTest, FourBitsAreTrainedEvaluatedAndShipped) {
  const SmallRun run(Tuned());
  Run(run, {"train.quantize.rules={body: {weights: int4, group: 32}, down: {layers: [down_proj], "
            "weights: lsq3}}"});
  const nlohmann::json verified = run.Result("verify")["files"][0];
  EXPECT_LT(verified["mean_kl"].get<double>(), 1e-6);  // Weight-only: rounding alone
  // The evaluation of the stage and that of the eval stage see one model.
  EXPECT_NEAR(run.Result("eval")["loss"].get<double>(),
              run.Result("train")["validation_loss"].get<double>(), 1e-5);
  const auto opened = transfer::OpenDecoder(run.Path("exports/small-hf-f32"));
  const at::Tensor w = opened.decoder.Get("model.layers.0.mlp.up_proj.weight").detach();
  std::set<float> values;
  for (int64_t k = 0; k < 32; ++k) values.insert(w.const_data_ptr<float>()[k]);
  EXPECT_LE(values.size(), 16u);
  EXPECT_GT(values.size(), 2u);
  const at::Tensor down = opened.decoder.Get("model.layers.0.mlp.down_proj.weight").detach();
  std::set<float> levels;
  for (int64_t k = 0; k < down.size(1); ++k) levels.insert(down.const_data_ptr<float>()[k]);
  EXPECT_LE(levels.size(), 8u);
}

// What one bit costs and what training wins back: the start that the report compares with is the
// model that a training of nothing ships.
TEST_F(QatTest, RecoveryComparesWithTheTeacherAndTheUntrainedStart) {
  const std::vector<std::string> both = {"train.quantize.rules={body: {weights: sign}}",
                                         "eval.recovery=true", "train.steps=40"};
  const SmallRun trained(Tuned() + "  - report: {}\n"), untrained(Tuned());
  Run(trained, both);
  std::vector<std::string> nothing = both;
  nothing.insert(nothing.end(), {"train.schedule.peak_lr=1e-10", "train.steps=1"});
  Run(untrained, nothing);
  const nlohmann::json got(trained.Result("eval")), start(untrained.Result("eval"));
  EXPECT_NEAR(got["start_loss"].get<double>(), start["loss"].get<double>(), 1e-6);
  EXPECT_NEAR(got["start_mean_kl"].get<double>(), start["mean_kl"].get<double>(), 1e-6);
  const auto loss = got["loss"].get<double>(), before = got["start_loss"].get<double>(),
             best = got["reference_loss"].get<double>();
  EXPECT_LT(best, loss);
  EXPECT_LT(loss, before);
  EXPECT_NEAR(got["recovered"].get<double>(), (before - loss) / (before - best), 1e-12);
  EXPECT_LT(got["mean_kl"].get<double>(), got["start_mean_kl"].get<double>());
  EXPECT_EQ(got["block_errors"].size(), 2u);
  EXPECT_FALSE(got.contains("curve"));  // One evaluation is none
  EXPECT_NE(ReadFile(trained.Path("report.md")).find("won back"), std::string::npos);
  const RunTable table = CompareRuns({trained.Path("")});
  EXPECT_NE(table.markdown.find("| small | 1 | 10.2 k |"), std::string::npos) << table.markdown;
}

// The untrained start of an evaluation between two trainings is quantized as the first one does.
TEST_F(QatTest, RecoveryBetweenTrainingsIsOfTheOneBefore) {
  std::string yaml = Tuned();
  yaml.resize(yaml.find("  - export"));
  const std::vector<std::string> sign = {"train.quantize.rules={body: {weights: sign}}",
                                         "eval.recovery=true", "train.steps=2"};
  const SmallRun alone(yaml);
  Run(alone, sign);
  yaml +=
      "  - train: {id: second, steps: 1, tokens_per_step: 256, sequence_length: 32, precision: "
      "fp32, eval_tokens: 0, schedule: {kind: constant, peak_lr: 1.0e-3}, quantize: {rules: {body: "
      "{weights: int4, group: 32}}}}\n";
  const SmallRun between(yaml);
  Run(between, sign);
  EXPECT_EQ(between.Result("eval")["start_loss"], alone.Result("eval")["start_loss"]);
}

// The law of the report goes through the validation losses of the log, over the tokens so far: the
// logs of what they are above it have the mean 0.
TEST_F(QatTest, TheLearningCurveIsExtrapolated) {
  const SmallRun run(Tuned() + "  - report: {}\n");
  Run(run, {"train.quantize.rules={body: {weights: sign}}", "train.quantize.warmup_steps=5",
            "eval.recovery=true", "train.steps=40", "train.eval_every=5",
            "train.schedule.peak_lr=1e-4"});
  const nlohmann::json curve = run.Result("eval")["curve"];
  EXPECT_EQ(curve["points"], 7);  // Not the one of the warm-up
  double residual = 0;
  for (const auto& [step, loss] :
       MetricsSeries(ReadMetrics(run.Path("metrics.jsonl")), "train", "validation_loss")) {
    if (step <= 5) continue;
    residual += std::log(loss - curve["reference_loss"].get<double>()) -
                std::log(curve["coefficient"].get<double>()) +
                curve["exponent"].get<double>() * std::log(256.0 * static_cast<double>(step));
  }
  EXPECT_NEAR(residual, 0, 1e-9);
  EXPECT_GT(curve["to"]["1.1"].get<double>(), curve["to"]["1.5"].get<double>());
  EXPECT_NE(ReadFile(run.Path("report.md")).find("extrapolated, not measured"), std::string::npos);
}

// Two bits of learned scale, stopped in the middle: the same bits as without the stop.
TEST_F(QatTest, LearnedScalesResumeToTheSameBits) {
  const std::vector<std::string> rules = {"train.quantize.rules={body: {weights: seq2}}",
                                          "train.quantize.warmup_steps=2"};
  const auto steps = [&](const char* count) {
    std::vector<std::string> overrides = rules;
    overrides.push_back(std::string("train.steps=") + count);
    return overrides;
  };
  const SmallRun once(Tuned()), twice(Tuned());
  Run(once, steps("12"));
  Run(twice, steps("6"));
  Run(twice, steps("12"));
  EXPECT_EQ(once.Result("train")["validation_loss"], twice.Result("train")["validation_loss"]);
}

// Stochastic rounding belongs to the step, and scales learn at a rate of their own: the same bits
// across a stop, and other ones than without.
TEST_F(QatTest, StochasticRoundingResumesToTheSameBits) {
  const std::string rules =
      "train.quantize.rules={body: {weights: int2, group: 32, rounding: stochastic}, down: "
      "{layers: "
      "[down_proj], weights: lsq3}, up: {layers: [up_proj], weights: ternary, rounding: "
      "stochastic}}";
  const auto run = [&](const SmallRun& run, const char* steps, const char* factor = "0.1") {
    Run(run, {rules, std::string("train.steps=") + steps,
              std::string("train.optimizer.scale_lr_factor=") + factor});
    return run.Result("train")["validation_loss"].get<double>();
  };
  const SmallRun once(Tuned()), twice(Tuned()), nearest(Tuned()), fast(Tuned());
  const double want = run(once, "12");
  run(twice, "5");
  EXPECT_EQ(run(twice, "12"), want);
  EXPECT_NE(run(fast, "12", "1"), want);
  Run(nearest,
      {"train.quantize.rules={body: {weights: int2, group: 32}, down: {layers: [down_proj], "
       "weights: lsq3}, up: {layers: [up_proj], weights: ternary}}",
       "train.steps=12", "train.optimizer.scale_lr_factor=0.1"});
  EXPECT_NE(nearest.Result("train")["validation_loss"].get<double>(), want);
  // What ships is rounded to the nearest: the stage's evaluation sees the exported model.
  EXPECT_NEAR(once.Result("eval")["loss"].get<double>(), want, 1e-5);
  EXPECT_LT(once.Result("verify")["files"][0]["mean_kl"].get<double>(), 1e-6);
}

constexpr const char* kRotated =
    "train.quantize.rules={body: {weights: ternary, inputs: int4_absmean}, late: {layers: [o_proj, "
    "down_proj], weights: ternary, inputs: int4_absmax, hadamard: true}}";

// W1.58A4 with rotated inputs through training, a stop, evaluation and a second stage; no file
// holds it.
TEST_F(QatTest, RotatedFourBitInputsAreTrainedAndEvaluated) {
  std::string yaml = Tuned();
  yaml.resize(yaml.find("  - export"));
  const SmallRun once(yaml), twice(yaml);
  Run(once, {kRotated, "train.steps=12"});
  Run(twice, {kRotated, "train.steps=5"});
  Run(twice, {kRotated, "train.steps=12"});
  EXPECT_EQ(once.Result("train")["validation_loss"], twice.Result("train")["validation_loss"]);
  // The checkpoint's decoder quantizes and rotates as training did.
  EXPECT_NEAR(once.Result("eval")["loss"].get<double>(),
              once.Result("train")["validation_loss"].get<double>(), 1e-5);
  const auto opened = transfer::OpenDecoder(once.Path("train/step-00000012"));
  EXPECT_EQ(opened.decoder.inputs().size(), 14u);
  EXPECT_THROW(transfer::CheckPlainInputs(opened.decoder, "hf/f32"), RecipeError);
  const SmallRun exported(Tuned());
  try {
    Run(exported, {kRotated});
    ADD_FAILURE();
  } catch (const RecipeError& error) {
    EXPECT_NE(std::string(error.what()).find("cannot hold inputs: int4_absmean"), std::string::npos)
        << error.what();
    EXPECT_FALSE(fs::exists(exported.runs()));
  }
}

// Rotation alone, of float inputs and weights: the start computes what the model did, and so does a
// stage without it that follows (of a training that changes nothing).
TEST_F(QatTest, ARotatedStartIsTheModel) {
  std::string yaml = Tuned();
  yaml.resize(yaml.find("  - eval"));
  yaml +=
      "  - train: {id: second, steps: 1, tokens_per_step: 256, sequence_length: 32, precision: "
      "fp32, eval_tokens: 0, schedule: {kind: constant, peak_lr: 1.0e-10}, optimizer: "
      "{weight_decay: 0}}\n";
  const std::vector<std::string> still = {"train.steps=1", "train.schedule.peak_lr=1e-10"};
  std::vector<std::string> rotated = still;
  rotated.push_back(
      "train.quantize.rules={late: {layers: [o_proj, down_proj], weights: none, "
      "hadamard: true}}");
  const SmallRun plain(yaml), turned(yaml);
  Run(plain, still);
  Run(turned, rotated);
  for (const char* id : {"train", "second"}) {
    EXPECT_NEAR(turned.Result(id)["validation_loss"].get<double>(),
                plain.Result(id)["validation_loss"].get<double>(), 1e-5)
        << id;
  }
}

// BitLinear keeps its weights; a rule changes what its inputs become.
TEST_F(QatTest, BitLinearTakesFourBitInputs) {
  std::string yaml = Tuned();
  yaml.resize(yaml.find("  - export"));
  const SmallRun eight(yaml), four(yaml);
  Run(eight, {"model.linear=bitlinear"});
  Run(four, {"model.linear=bitlinear",
             "train.quantize.rules={all: {weights: none, inputs: int4_absmean, hadamard: true}}"});
  EXPECT_NE(eight.Result("eval")["loss"], four.Result("eval")["loss"]);
  EXPECT_NEAR(four.Result("eval")["loss"].get<double>(),
              four.Result("train")["validation_loss"].get<double>(), 1e-5);
  const auto refused = [&](const char* rule) {
    const SmallRun run(yaml);
    try {
      Run(run, {"model.linear=bitlinear", std::string("train.quantize.rules={all: ") + rule + "}"});
    } catch (const RecipeError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(refused("{weights: int4}").find("model.linear is bitlinear"), std::string::npos);
  EXPECT_NE(refused("{weights: none, inputs: int8}").find("which is what model.linear"),
            std::string::npos);
}

// Adapters under BitLinear: the merged latents are quantized, shipped and verified; a later stage
// goes on from them.
TEST_F(QatTest, AdaptersUnderTernaryLayersAreMergedAndShipped) {
  const SmallRun run(Tuned());
  Run(run, {"model.linear=bitlinear", "train.lora={rank: 4, alpha: 8}",
            "train.schedule.peak_lr=1.0e-2", "export.formats=[hf/bitnet]"});
  EXPECT_EQ(run.Result("verify")["files"][0]["ternary_matrices"], 14);
  const auto shipped = transfer::OpenDecoder(run.Path("train/step-00000010"));
  const auto start = transfer::OpenDecoder(DenseModel());
  EXPECT_TRUE(at::equal(shipped.decoder.Get("model.embed_tokens.weight"),
                        start.decoder.Get("model.embed_tokens.weight")));  // Frozen
  // So it has no moments: parameters of the model once, adapters and their moments.
  const checkpoint::CheckpointReader reader(run.Path("train/step-00000010"));
  const std::string embedding = "model.embed_tokens.weight";
  EXPECT_THROW(model::ReadInto(reader, StrCat(checkpoint::kExpAvgGroup, embedding),
                               start.decoder.Get(embedding).detach().clone()),
               FormatError);
  const at::Tensor moment_RK = at::empty({4, 128}, at::kFloat);
  model::ReadInto(reader,
                  StrCat(checkpoint::kExpAvgGroup, "lora_a.model.layers.0.self_attn.q_proj.weight"),
                  moment_RK);
  EXPECT_GT(moment_RK.abs().max().item<float>(), 0.0f);
}

// What `freeze` matches keeps its bits and has no moments; the rest is trained, to the same bits
// across a stop.
TEST_F(QatTest, FrozenParametersStayAndResumeToTheSameBits) {
  const std::vector<std::string> keys = {
      "train.quantize.rules={body: {weights: int4, group: 32}}",
      "train.freeze=[model.embed_tokens, '*norm', model.layers.0.*]", "train.steps=4"};
  const SmallRun whole(Tuned()), cut(Tuned());
  Run(whole, keys);
  std::vector<std::string> half = keys;
  half.back() = "train.steps=2";
  Run(cut, half);
  Run(cut, keys);
  const auto trained = transfer::OpenDecoder(whole.Path("train/step-00000004"));
  const auto resumed = transfer::OpenDecoder(cut.Path("train/step-00000004"));
  const checkpoint::CheckpointReader reader(whole.Path("train/step-00000004"));
  const model::Decoder latents = qat::LoadLatents(reader);
  const auto start = transfer::OpenDecoder(DenseModel());
  for (const model::Parameter& parameter : start.decoder.parameters()) {
    const std::string& name = parameter.spec.name;
    const bool stays = name.find("layers.1.mlp") == std::string::npos &&
                       name.find("layers.1.self_attn") == std::string::npos;
    EXPECT_EQ(at::equal(latents.Get(name), parameter.value), stays) << name;
    const at::Tensor moment = at::empty(parameter.spec.shape, at::kFloat);
    if (stays) {
      EXPECT_THROW(model::ReadInto(reader, StrCat(checkpoint::kExpAvgGroup, name), moment),
                   FormatError)
          << name;
    } else {
      model::ReadInto(reader, StrCat(checkpoint::kExpAvgGroup, name), moment);
      EXPECT_GT(moment.abs().max().item<float>(), 0.0f) << name;
    }
    EXPECT_TRUE(at::equal(trained.decoder.Get(name), resumed.decoder.Get(name))) << name;
  }
}

// The scales of a fixed model alone, as after its weights were quantized.
TEST_F(QatTest, LearnedScalesAreTrainedBesideFrozenWeights) {
  const SmallRun run(Tuned());
  Run(run, {"train.quantize.rules={body: {weights: lsq3}}", "train.freeze=['*']",
            "eval.recovery=true", "train.optimizer.scale_lr_factor=1"});
  const model::Decoder latents =
      qat::LoadLatents(checkpoint::CheckpointReader(run.Path("train/step-00000010")));
  const auto start = transfer::OpenDecoder(DenseModel());
  for (const model::Parameter& parameter : start.decoder.parameters())
    EXPECT_TRUE(at::equal(latents.Get(parameter.spec.name), parameter.value));
  EXPECT_LT(run.Result("eval")["mean_kl"].get<double>(),
            run.Result("eval")["start_mean_kl"].get<double>());
}

TEST_F(QatTest, RefusesToFreezeWhatWouldNotTrain) {
  EXPECT_NE(Refused({"train.freeze=['*']"}).find("match every parameter"), std::string::npos);
  EXPECT_NE(Refused({"train.freeze=[lm_head]"}).find("the head is the embedding's"),
            std::string::npos);
  EXPECT_NE(Refused({"train.freeze=['*norm']", "train.lora={rank: 4}"}).find("beside lora"),
            std::string::npos);
  EXPECT_NE(Refused({"train.freeze=['*norm']", "train.activation_checkpointing=block"})
                .find("found block beside freeze"),
            std::string::npos);
}

TEST_F(QatTest, RefusesBeforeTraining) {
  const std::string body = "train.quantize.rules={body: {weights: int4, group: 32}}";
  EXPECT_NE(Refused({body, "export.formats=[hf/bf16]"}).find("would round"), std::string::npos);
  const std::string packed = "export.formats=[hf/compressed_tensors]";
  for (const char* weights : {"ternary", "seq_ternary"}) {
    const std::string why =
        Refused({StrCat("train.quantize.rules={body: {weights: ", weights, "}}"), packed});
    EXPECT_NE(why.find(StrCat("cannot hold ", weights)), std::string::npos) << why;
  }
  EXPECT_NE(Refused({packed}).find("has none"), std::string::npos);
  const std::string blocks = "train.quantize.rules={body: {weights: q4_0}}";
  EXPECT_NE(Refused({blocks, packed}).find("want gguf/quantized, hf/f32"), std::string::npos);
  EXPECT_NE(Refused({body, "export.formats=[gguf/quantized]"}).find("want weights: q4_0 or q8_0"),
            std::string::npos);
  EXPECT_NE(Refused({"train.quantize.rules={body: {layers: [qkv], weights: int4}}"})
                .find("matches no linear layer"),
            std::string::npos);
  EXPECT_NE(Refused({"train.quantize.rules={body: {weights: int4, group: 48}}"}).find("48"),
            std::string::npos);
  EXPECT_NE(Refused({body, "train.quantize.progressive=[int8, lsq4]"}).find("lsq4"),
            std::string::npos);
  EXPECT_NE(Refused({body, "train.quantize.warmup_steps=10"}).find("is not below"),
            std::string::npos);
}

}  // namespace
}  // namespace tern::job
