// Fake quantizers in a decoder: which layers they take, what the forward pass sees, where gradients
// go, and what a checkpoint ships.
#include "qat/quantized_model.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "arch/model_config_json.h"
#include "base/error.h"
#include "model/checkpoint_io.h"
#include "qat/fake_quantize.h"
#include "quant/ternary.h"
#include "quant/weight_quantizer.h"
#include "tests/testing/temp_folder.h"

namespace tern::qat {
namespace {

using recipe::WeightQuantizer;

ModelConfig Config() {
  ModelConfig c;
  c.vocab_size = 50;
  c.hidden_size = 64;
  c.intermediate_size = 128;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.context_length = 16;
  c.linear = LinearKind::kDense;
  c.sub_norms = SubNorms::kNone;
  return c;
}

recipe::QuantizeRule Rule(const std::string& name, std::vector<std::string> layers,
                          WeightQuantizer weights, int64_t group = 32) {
  recipe::QuantizeRule rule;
  rule.name = name;
  rule.layers = std::move(layers);
  rule.weights = weights;
  rule.group = group;
  return rule;
}

recipe::TrainStage Stage(std::vector<recipe::QuantizeRule> rules) {
  recipe::TrainStage stage;
  stage.steps = 100;
  stage.quantize.rules = std::move(rules);
  return stage;
}

std::string Refused(const recipe::TrainStage& stage, const ModelConfig& config = Config()) {
  try {
    MatchRules(stage.quantize, config, "train");
  } catch (const RecipeError& error) {
    return error.what();
  }
  return "";
}

TEST(LayerRulesTest, TheLastMatchHasALayer) {
  const LayerRules rules =
      MatchRules(Stage({Rule("body", {"*"}, WeightQuantizer::kInt4),
                        Rule("down", {"down_proj"}, WeightQuantizer::kInt8),
                        Rule("first", {"model.layers.0.self_attn.*"}, WeightQuantizer::kNone)})
                     .quantize,
                 Config(), "train");
  EXPECT_EQ(rules.size(), 10u);  // 14 without the 4 of the first layer's attention
  EXPECT_EQ(rules.at("model.layers.1.mlp.down_proj.weight").weights, WeightQuantizer::kInt8);
  EXPECT_EQ(rules.at("model.layers.0.mlp.up_proj.weight").weights, WeightQuantizer::kInt4);
  EXPECT_FALSE(rules.contains("model.layers.0.self_attn.q_proj.weight"));
  const auto lines = Describe(rules, Config());
  EXPECT_EQ(lines.size(), 3u);
}

// The pair of every quantizer that has a format: what the forward pass sees is what its codes and
// scales dequantize to, bit for bit but for the sign of zeros, which integers have not.
TEST(EncodeTest, CodesDequantizeToTheForwardPass) {
  auto generator = at::detail::createCPUGenerator(11);
  const at::Tensor w_NK = at::empty({24, 256}, at::kFloat).normal_(0, 0.02, generator);
  int64_t formats = 0;
  for (size_t i = 0; i < recipe::WeightQuantizerNames().size(); ++i) {
    for (const bool symmetric : {true, false}) {  // Of learned scales: a row's, or 32 weights'
      recipe::QuantizeRule rule = Rule("a", {"*"}, static_cast<WeightQuantizer>(i));
      rule.symmetric = symmetric;
      const auto learned = LearnedOf(rule);
      if (learned) rule.group = symmetric ? 0 : 32;
      if (!FormatOf(rule)) continue;
      ++formats;
      at::Tensor scale_NG;  // Between two bf16 numbers
      if (learned) scale_NG = InitialScale(*learned, w_NK, symmetric ? 1 : 8) * 0.7013;
      const at::Tensor forward_NK = FakeQuantize(rule, w_NK, {scale_NG, {}, {}});
      EXPECT_TRUE(at::equal(quant::Dequantize(Encode(rule, w_NK, {scale_NG, {}, {}})), forward_NK))
          << NameOf(rule.weights) << symmetric;
    }
  }
  EXPECT_EQ(formats, 38);
}

TEST(LayerRulesTest, RefusesWhatCannotBe) {
  EXPECT_NE(Refused(Stage({Rule("a", {"*", "qkv_proj"}, WeightQuantizer::kInt4)}))
                .find("\"qkv_proj\", which matches no linear layer"),
            std::string::npos);
  EXPECT_NE(Refused(Stage({Rule("a", {"*"}, WeightQuantizer::kInt4, 48)})).find("48"),
            std::string::npos);
  EXPECT_NE(Refused(Stage({Rule("a", {"*"}, WeightQuantizer::kLsq3, 48)})).find("48"),
            std::string::npos);
  EXPECT_NE(Refused(Stage({Rule("a", {"*"}, WeightQuantizer::kSeqTernary, 48)})).find("48"),
            std::string::npos);
  EXPECT_EQ(Refused(Stage({Rule("a", {"*"}, WeightQuantizer::kLsq3, 32)})), "");
  recipe::TrainStage ladder = Stage({Rule("a", {"*"}, WeightQuantizer::kNvfp4, 48)});
  EXPECT_EQ(Refused(ladder), "");  // It has its own
  ladder.quantize.progressive = {"int8"};
  EXPECT_NE(Refused(ladder).find("48"), std::string::npos);
  EXPECT_NE(Refused(Stage({Rule("a", {}, WeightQuantizer::kInt4)})).find("found an empty list"),
            std::string::npos);
  EXPECT_NE(Refused(Stage({Rule("a", {"q_proj"}, WeightQuantizer::kInt4),
                           Rule("b", {"*"}, WeightQuantizer::kInt8)}))
                .find("rules.a.layers: rules after it have all"),
            std::string::npos);
  ModelConfig ternary = Config();
  ternary.linear = LinearKind::kBitLinear;
  EXPECT_NE(
      Refused(Stage({Rule("a", {"*"}, WeightQuantizer::kInt4)}), ternary).find("model.linear"),
      std::string::npos);
  EXPECT_EQ(Refused(Stage({Rule("a", {"*"}, WeightQuantizer::kInt4, 64)})), "");
}

// The forward pass has the values that the export dequantizes to, of every quantizer.
TEST(FakeQuantizeTest, ValuesAreTheSharedQuantizers) {
  auto generator = at::detail::createCPUGenerator(3);
  const at::Tensor w = at::empty({8, 128}, at::kFloat).normal_(0, 0.02, generator);
  for (const WeightQuantizer weights :
       {WeightQuantizer::kInt8, WeightQuantizer::kInt4, WeightQuantizer::kInt3,
        WeightQuantizer::kInt2, WeightQuantizer::kFp8, WeightQuantizer::kFp8Tensor,
        WeightQuantizer::kFp8Block, WeightQuantizer::kFp8E5m2, WeightQuantizer::kFp8E5m2Tensor,
        WeightQuantizer::kFp8E5m2Block, WeightQuantizer::kNvfp4, WeightQuantizer::kMxfp4,
        WeightQuantizer::kQ4_0, WeightQuantizer::kQ8_0}) {
    const recipe::QuantizeRule rule = Rule("a", {"*"}, weights);
    EXPECT_TRUE(at::equal(FakeQuantize(rule, w, {}),
                          quant::Dequantize(quant::Quantize(w, *FormatOf(rule)))))
        << NameOf(weights);
    EXPECT_EQ(QuantizerFromName(NameOf(weights)), weights);
  }
  const quant::TernaryWeight ternary = quant::QuantizeTernary(w);
  EXPECT_TRUE(at::equal(FakeQuantize(Rule("a", {"*"}, WeightQuantizer::kTernary), w, {}),
                        quant::Dequantize(ternary, ternary.beta)));
}

// dL/dlatent of L = sum(c * q(w)) is c; with clipped_gradient, 0 where the weight is beyond.
TEST(FakeQuantizeTest, GradientsGoStraightThrough) {
  auto generator = at::detail::createCPUGenerator(3);
  at::Tensor w = at::empty({4, 64}, at::kFloat).normal_(0, 0.02, generator).set_requires_grad(true);
  const at::Tensor c = at::empty({4, 64}, at::kFloat).normal_(0, 1, generator);
  recipe::QuantizeRule rule = Rule("a", {"*"}, WeightQuantizer::kInt2, 64);
  torch::autograd::backward({FakeQuantize(rule, w, {})}, {c});
  EXPECT_TRUE(at::equal(w.grad(), c));
  w.mutable_grad() = at::Tensor();
  rule.clipped_gradient = true;
  at::Tensor inside;
  quant::FakeQuantize(w.detach(), *FormatOf(rule), {}, &inside);
  torch::autograd::backward({FakeQuantize(rule, w, {})}, {c});
  EXPECT_TRUE(at::equal(w.grad(), c * inside));
}

// BitNet's absmean: c for every weight; clipped, for those that are within 1.5 beta, beta =
// mean|w|.
TEST(FakeQuantizeTest, TernaryGradientsGoStraightThroughOrAreClipped) {
  auto generator = at::detail::createCPUGenerator(4);
  at::Tensor w = at::empty({4, 64}, at::kFloat).normal_(0, 0.02, generator).set_requires_grad(true);
  const at::Tensor c = at::empty({4, 64}, at::kFloat).normal_(0, 1, generator);
  const at::Tensor inside = w.detach().abs() <= 1.5 * w.detach().abs().mean();
  ASSERT_GT(inside.logical_not().sum().item<int64_t>(), 20);  // Of 256; a Gaussian has 23 %
  const quant::Noise noise{RandomStream(1, "rounding/test"), 0};
  for (const quant::Noise* rounds : {static_cast<const quant::Noise*>(nullptr), &noise}) {
    recipe::QuantizeRule rule = Rule("a", {"*"}, WeightQuantizer::kTernary);
    if (rounds != nullptr) rule.rounding = recipe::Rounding::kStochastic;
    for (const bool clipped : {false, true}) {
      rule.clipped_gradient = clipped;
      w.mutable_grad() = at::Tensor();
      torch::autograd::backward({FakeQuantize(rule, w, {}, rounds)}, {c});
      EXPECT_TRUE(at::equal(w.grad(), clipped ? c * inside : c)) << clipped;
    }
  }
}

// Engines make one matrix of q, k, v, and one of gate, up: each of the two has one scale for the
// whole, NVFP4's global one or FP8's only one.
TEST(QuantizedModelTest, FusedMatricesShareTheScaleOfTheTensor) {
  model::Decoder decoder(Config());
  decoder.Initialize(5);
  const std::string at = "model.layers.0.self_attn.";
  const at::NoGradGuard no_grad;
  decoder.Get(at + "k_proj.weight").mul_(3);
  for (const auto& [weights, format] :
       {std::pair{WeightQuantizer::kNvfp4, quant::Nvfp4()},
        std::pair{WeightQuantizer::kFp8Tensor, quant::Fp8Tensor()},
        std::pair{WeightQuantizer::kFp8E5m2Tensor, quant::Fp8Tensor(quant::Element::kE5m2)}}) {
    const QuantizedModel quantized(Stage({Rule("body", {"*"}, weights)}), Config());
    const model::Decoder shipped = quantized.Shipped(decoder);
    quant::RangeSearch range;
    range.amax = quant::MaxAbs(decoder.Get(at + "k_proj.weight"));
    for (const char* name : {"q_proj.weight", "k_proj.weight", "v_proj.weight"}) {
      const at::Tensor w_NK = decoder.Get(at + name).detach();
      EXPECT_TRUE(at::equal(shipped.Get(at + name), quant::FakeQuantize(w_NK, format, range)))
          << format.Describe() << " " << name;
    }
    const at::Tensor o_NK = decoder.Get(at + "o_proj.weight").detach();
    EXPECT_TRUE(at::equal(shipped.Get(at + "o_proj.weight"), quant::FakeQuantize(o_NK, format)));
  }
}

TEST(QuantizedModelTest, StepsSendGradientsToLatentsAndScales) {
  model::Decoder decoder(Config());
  decoder.Initialize(5);
  QuantizedModel quantized(Stage({Rule("body", {"*"}, WeightQuantizer::kInt4),
                                  Rule("low", {"up_proj"}, WeightQuantizer::kSeq2)}),
                           Config());
  quantized.Start(decoder);
  ASSERT_EQ(quantized.parameters().size(), 2u);
  const model::Decoder step = quantized.Begin(decoder, 0);
  model::DecoderInput input;
  input.tokens_BT = at::arange(16, at::kLong).view({2, 8});
  // Two micro-batches into one set of quantized matrices.
  for (int i = 0; i < 2; ++i)
    torch::autograd::backward({step.Logits(input, {}).square().mean()}, {});
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  EXPECT_FALSE(decoder.Get(name).grad().defined());
  const at::Tensor collected = step.Get(name).grad().clone();
  quantized.End();
  EXPECT_TRUE(at::equal(decoder.Get(name).grad(), collected));
  EXPECT_GT(quantized.parameters()[0].value.grad().abs().max().item<float>(), 0);
  EXPECT_GT(decoder.Get("model.norm.weight").grad().abs().max().item<float>(), 0);
}

TEST(QuantizedModelTest, WarmupBlendsAndTheLadderTakesTurns) {
  model::Decoder decoder(Config());
  decoder.Initialize(5);
  recipe::TrainStage stage = Stage({Rule("body", {"*"}, WeightQuantizer::kInt2)});
  stage.quantize.warmup_steps = 10;
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  const at::Tensor w = decoder.Get(name).detach();
  const auto quantize = [&](WeightQuantizer weights) {
    return FakeQuantize(Rule("a", {"*"}, weights), w, {});
  };
  {
    QuantizedModel blended(stage, Config());
    const at::Tensor at_4 = blended.Begin(decoder, 4).Get(name).detach();
    const at::Tensor want = w * 0.6 + quantize(WeightQuantizer::kInt2) * 0.4;
    EXPECT_LT((at_4 - want).abs().max().item<float>(), 1e-8);
    EXPECT_TRUE(at::equal(blended.Begin(decoder, 10).Get(name), quantize(WeightQuantizer::kInt2)));
    EXPECT_TRUE(at::equal(blended.Shipped(decoder).Get(name), quantize(WeightQuantizer::kInt2)));
  }
  stage.quantize.warmup_steps = 0;
  stage.quantize.progressive = {"int8", "int4"};
  QuantizedModel ladder(stage, Config());  // 100 steps: int8 to 25, int4 to 50
  for (const auto& [step, want] : {std::pair(0, WeightQuantizer::kInt8),
                                   {24, WeightQuantizer::kInt8},
                                   {25, WeightQuantizer::kInt4},
                                   {49, WeightQuantizer::kInt4},
                                   {50, WeightQuantizer::kInt2}})
    EXPECT_TRUE(at::equal(ladder.Begin(decoder, step).Get(name), quantize(want))) << step;
}

// A step's values are its own, whoever asks again; what is shipped is rounded to the nearest.
TEST(QuantizedModelTest, StochasticRoundingIsOfTheStep) {
  model::Decoder decoder(Config());
  decoder.Initialize(5);
  recipe::TrainStage stage = Stage({Rule("body", {"*"}, WeightQuantizer::kInt4)});
  stage.quantize.rules[0].rounding = recipe::Rounding::kStochastic;
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  QuantizedModel quantized(stage, Config(), 1), again(stage, Config(), 1),
      other(stage, Config(), 2);
  const at::Tensor at_3 = quantized.Begin(decoder, 3).Get(name).detach();
  EXPECT_TRUE(at::equal(again.Begin(decoder, 3).Get(name), at_3));
  EXPECT_FALSE(at::equal(again.Begin(decoder, 4).Get(name), at_3));
  EXPECT_FALSE(at::equal(other.Begin(decoder, 3).Get(name), at_3));
  EXPECT_FALSE(
      at::equal(quantized.Begin(decoder, 3).Get("model.layers.1.mlp.down_proj.weight"), at_3));
  const recipe::QuantizeRule nearest = Rule("body", {"*"}, WeightQuantizer::kInt4);
  EXPECT_TRUE(at::equal(quantized.Shipped(decoder).Get(name),
                        FakeQuantize(nearest, decoder.Get(name).detach(), {})));
}

// Learned scales have their own rate; nothing else has.
TEST(QuantizedModelTest, ScalesCarryTheirLearningRate) {
  recipe::TrainStage stage = Stage({Rule("low", {"up_proj"}, WeightQuantizer::kSeq2)});
  stage.optimizer.scale_lr_factor = 0.2;
  stage.lora.rank = 2;
  stage.lora.layers = {"down_proj"};
  for (const model::Parameter& parameter : QuantizedModel(stage, Config()).parameters()) {
    const bool is_scale = parameter.spec.name.starts_with("quantize.");
    EXPECT_EQ(parameter.lr_factor, is_scale ? 0.2 : 1.0) << parameter.spec.name;
  }
}

// Float weights, rotated: W H (H x) is W x. fp32 sums of 128 terms.
TEST(QuantizedModelTest, ARotatedStartComputesTheSame) {
  model::Decoder plain(Config()), decoder(Config());
  plain.Initialize(5);
  decoder.Initialize(5);
  recipe::TrainStage stage = Stage({Rule("late", {"o_proj", "down_proj"}, WeightQuantizer::kNone)});
  stage.quantize.rules[0].hadamard = true;
  const QuantizedModel quantized(stage, Config());
  quantized.Start(decoder);
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  EXPECT_FALSE(at::allclose(decoder.Get(name), plain.Get(name)));
  const at::NoGradGuard no_grad;
  model::DecoderInput input;
  input.tokens_BT = at::arange(16, at::kLong).view({2, 8});
  const model::Decoder shipped = quantized.Shipped(decoder);
  EXPECT_EQ(shipped.inputs().size(), 4u);
  const at::Tensor want = plain.Logits(input, {});
  EXPECT_LT((shipped.Logits(input, {}) - want).abs().max().item<float>(), 1e-5);
  EXPECT_GT((decoder.Logits(input, {}) - want).abs().max().item<float>(), 1e-3);  // Without H x
}

TEST(LayerRulesTest, RefusesRotationsOfOddRowsAndCodesThatBitLinearHas) {
  ModelConfig odd = Config();
  odd.intermediate_size = 120;  // Blocks of 8
  recipe::TrainStage stage = Stage({Rule("a", {"down_proj"}, WeightQuantizer::kTernary)});
  stage.quantize.rules[0].hadamard = true;
  EXPECT_EQ(Refused(stage), "");
  EXPECT_NE(Refused(stage, odd).find("train.quantize.rules.a.hadamard"), std::string::npos);
  EXPECT_NE(Refused(stage, odd).find("blocks of 8"), std::string::npos);
  ModelConfig ternary = Config();
  ternary.linear = LinearKind::kBitLinear;
  stage = Stage({Rule("a", {"*"}, WeightQuantizer::kNone)});
  stage.quantize.rules[0].inputs = recipe::InputQuantizer::kInt4Absmean;
  EXPECT_EQ(Refused(stage, ternary), "");
  stage.quantize.rules[0].inputs = recipe::InputQuantizer::kInt8;
  EXPECT_NE(Refused(stage, ternary).find("int8, which is what"), std::string::npos);
  EXPECT_EQ(Refused(stage), "");  // Of a dense layer it is W16A8
}

TEST(QuantizedModelTest, WarmupCurvesGoFromZeroToOne) {
  recipe::QuantizeConfig config;
  config.warmup_steps = 100;
  for (const auto curve : {recipe::QuantizeWarmup::kLinear, recipe::QuantizeWarmup::kExponential,
                           recipe::QuantizeWarmup::kSigmoid}) {
    config.warmup = curve;
    EXPECT_NEAR(QuantizedShare(config, 0), 0, 1e-12);
    EXPECT_EQ(QuantizedShare(config, 100), 1);
    double last = 0;
    for (int64_t step = 1; step < 100; ++step) {
      EXPECT_GT(QuantizedShare(config, step), last);
      last = QuantizedShare(config, step);
    }
    EXPECT_LT(last, 1);
  }
  EXPECT_NEAR(QuantizedShare(config, 50), 0.5, 1e-12);  // The sigmoid is symmetric
}

// Frozen latents; the quantizer sees the sum, and only A and B get gradients. With B = 0 the model
// is what it was.
TEST(AdaptersTest, SitUnderTheQuantizer) {
  model::Decoder decoder(Config());
  decoder.Initialize(5);
  for (const model::Parameter& parameter : decoder.parameters()) {
    at::Tensor frozen = parameter.value;
    frozen.set_requires_grad(false);
  }
  recipe::TrainStage stage = Stage({Rule("body", {"*"}, WeightQuantizer::kInt4)});
  stage.lora.rank = 4;
  stage.lora.alpha = 8;
  stage.lora.layers = {"down_proj"};
  QuantizedModel quantized(stage, Config(), 1);
  ASSERT_EQ(quantized.parameters().size(), 4u);  // A and B of two layers
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  const at::Tensor w = decoder.Get(name);
  EXPECT_TRUE(at::equal(quantized.Shipped(decoder).Get(name),
                        FakeQuantize(stage.quantize.rules[0], w, {})));

  const at::Tensor a = quantized.parameters()[0].value, b = quantized.parameters()[1].value;
  {
    const at::NoGradGuard no_grad;
    at::Tensor filled = b;
    filled.fill_(0.01);
  }
  const at::Tensor merged = w + 2.0 * at::matmul(b.detach(), a.detach());
  EXPECT_TRUE(at::equal(quantized.Shipped(decoder).Get(name),
                        FakeQuantize(stage.quantize.rules[0], merged, {})));
  const model::Decoder step = quantized.Begin(decoder, 0);
  model::DecoderInput input;
  input.tokens_BT = at::arange(16, at::kLong).view({2, 8});
  torch::autograd::backward({step.Logits(input, {}).square().mean()}, {});
  const at::Tensor dw = step.Get(name).grad().clone();
  quantized.End();
  // Straight through: dA = 2 B^T dW, dB = 2 dW A^T. fp32 sums of up to 128 terms: 128 x 6e-8.
  const double bound = 1e-5 * dw.abs().max().item<double>();
  EXPECT_LT((a.grad() - 2.0 * at::matmul(b.detach().t(), dw)).abs().max().item<double>(), bound);
  EXPECT_LT((b.grad() - 2.0 * at::matmul(dw, a.detach().t())).abs().max().item<double>(),
            bound * 10);
  EXPECT_GT(dw.abs().max().item<double>(), 0);
}

TEST(QuantizedModelTest, ACheckpointShipsWhatWasTrained) {
  model::Decoder decoder(Config());
  decoder.Initialize(5);
  recipe::TrainStage stage = Stage({Rule("body", {"*"}, WeightQuantizer::kInt4),
                                    Rule("low", {"up_proj"}, WeightQuantizer::kLsq3)});
  stage.lora.rank = 2;
  stage.lora.layers = {"q_proj", "up_proj"};
  QuantizedModel quantized(stage, Config(), 1);
  for (const model::Parameter& parameter : quantized.parameters()) {
    const at::NoGradGuard no_grad;
    at::Tensor value = parameter.value;
    if (parameter.spec.name.starts_with("lora_b")) value.fill_(0.02);
  }
  quantized.Start(decoder);
  checkpoint::CheckpointMeta meta;
  meta.state = {{"model", ToJson(Config())}, {kQuantizeState, quantized.ToJson()}};
  std::vector<checkpoint::TensorView> tensors;
  for (const model::Parameter& parameter : decoder.parameters())
    tensors.push_back(
        model::ViewOf(std::string(checkpoint::kModelGroup) + parameter.spec.name, parameter.value));
  for (const model::Parameter& scale : quantized.parameters())
    tensors.push_back(model::ViewOf(std::string(kExtraGroup) + scale.spec.name, scale.value));
  const testing::TempFolder folder;
  const std::string path = checkpoint::WriteCheckpoint(folder.path(), meta, tensors);
  const model::Decoder shipped = LoadShipped(checkpoint::CheckpointReader(path)),
                       want = quantized.Shipped(decoder);
  for (size_t i = 0; i < want.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(shipped.parameters()[i].value, want.parameters()[i].value))
        << want.parameters()[i].spec.name;
  }
  EXPECT_FALSE(at::equal(shipped.Get("model.layers.0.mlp.up_proj.weight"),
                         decoder.Get("model.layers.0.mlp.up_proj.weight")));
}

}  // namespace
}  // namespace tern::qat
