// Sub-norms put into a model that had none.
#include "model/sub_norms.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>

namespace tern::model {
namespace {

ModelConfig Config(SubNorms sub_norms) {
  ModelConfig c;
  c.vocab_size = 50;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.context_length = 16;
  c.linear = LinearKind::kDense;
  c.sub_norms = sub_norms;
  return c;
}

// The gain of each channel is the least-squares solution, computed here by plain sums.
TEST(SubNormsTest, GainsAreTheLeastSquaresFit) {
  Decoder plain(Config(SubNorms::kNone)), with(Config(SubNorms::kOutputs));
  plain.Initialize(1);
  with.Initialize(2);
  with.CopyFrom(plain);
  DecoderInput input;
  input.tokens_BT = at::arange(24, at::kLong).view({2, 12});
  FitSubNorms(plain, input, &with);

  Capture capture;
  capture.layers = {1};
  ForwardOptions options;
  options.capture = &capture;
  plain.Hidden(input, options);
  const at::Tensor x = capture.features.at(1).down_input_MF.detach();
  const at::Tensor gain = with.Get("model.layers.1.mlp.ffn_sub_norm.weight");
  for (int64_t d = 0; d < x.size(1); ++d) {
    double above = 0, below = 0;
    for (int64_t m = 0; m < x.size(0); ++m) {
      double squares = 0;
      for (int64_t j = 0; j < x.size(1); ++j) squares += std::pow(x[m][j].item<double>(), 2);
      const double rms = std::sqrt(squares / static_cast<double>(x.size(1)) + 1e-5f);
      const double value = x[m][d].item<double>();
      above += value * value / rms;
      below += value * value / rms / rms;
    }
    EXPECT_NEAR(gain[d].item<double>(), above / below, 1e-6 * above / below);  // fp32 of a double
  }
}

// One token: one rms, so the fit is exact and the logits are those of the plain model up to
// rounding: two more operations of relative 6e-8 on each of 2 x 2 paths.
TEST(SubNormsTest, OneTokenIsReproduced) {
  Decoder plain(Config(SubNorms::kNone)), with(Config(SubNorms::kOutputs));
  plain.Initialize(1);
  with.Initialize(2);
  with.CopyFrom(plain);
  DecoderInput input;
  input.tokens_BT = at::full({1, 1}, 7, at::kLong);
  FitSubNorms(plain, input, &with);
  const at::Tensor want = plain.Logits(input, {}).detach(), got = with.Logits(input, {}).detach();
  EXPECT_LT((want - got).abs().max().item<double>(), 1e-5 * want.abs().max().item<double>());
}

// Logits of `to` made of `from`, which has gains of its own, relative to the largest; several
// tokens.
double Moved(SubNorms from, SubNorms to) {
  const at::NoGradGuard no_grad;
  Decoder plain(Config(from)), with(Config(to));
  plain.Initialize(1);
  auto generator = at::detail::createCPUGenerator(3);
  for (const Parameter& parameter : plain.parameters())
    if (parameter.spec.role == ParameterRole::kNorm) parameter.value.uniform_(0.5, 2, generator);
  with.Initialize(2);
  with.CopyFrom(plain);
  DecoderInput input;
  input.tokens_BT = at::arange(24, at::kLong).view({2, 12});
  FitSubNorms(plain, input, &with);
  const at::Tensor want = plain.Logits(input, {}), got = with.Logits(input, {});
  return ((want - got).abs().max() / want.abs().max()).item<double>();
}

// Norms that have a counterpart, and those of layers that read a pre-norm, are taken over: the same
// numbers up to rounding where the pre-norms go, up to the epsilon of a second norm where they stay
// (1e-5 beside a mean square of 4e-4 at the embedding, which is 0.02 wide: 1.2 %, and less behind).
TEST(SubNormsTest, WhatStandsBehindAPreNormGoesOnExactly) {
  EXPECT_LT(Moved(SubNorms::kOutputs, SubNorms::kEveryLinearOnly), 1e-5);
  EXPECT_LT(Moved(SubNorms::kOutputs, SubNorms::kEveryLinear), 0.02);
  EXPECT_GT(Moved(SubNorms::kOutputs, SubNorms::kEveryLinear), 0);
}

// Before o_proj and down_proj the rest is what the fit leaves over, the same as for those alone.
TEST(SubNormsTest, EveryPlacementStartsWhereTheFitOfTheOutputsDoes) {
  const double outputs = Moved(SubNorms::kNone, SubNorms::kOutputs);
  EXPECT_GT(outputs, 0.001);
  EXPECT_NEAR(Moved(SubNorms::kNone, SubNorms::kEveryLinearOnly), outputs, 1e-4 * outputs);
  EXPECT_NEAR(Moved(SubNorms::kNone, SubNorms::kEveryLinear), outputs, 0.02);
}

TEST(SubNormsTest, NormsAreAddedNotTakenAway) {
  const SubNorms all[] = {SubNorms::kNone, SubNorms::kOutputs, SubNorms::kEveryLinear,
                          SubNorms::kEveryLinearOnly};
  for (const SubNorms from : all) {
    for (const SubNorms to : all) {
      const bool possible = from == to || from == SubNorms::kNone ||
                            (from == SubNorms::kOutputs && to != SubNorms::kNone);
      EXPECT_EQ(WhyNotInserted(from, to).empty(), possible) << ToString(from) << ToString(to);
    }
  }
}

}  // namespace
}  // namespace tern::model
