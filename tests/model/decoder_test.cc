// The decoder: causal, deterministic, the same with recomputed blocks, and packed documents equal
// documents on their own.
#include "model/decoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include "base/error.h"
#include "nn/loss.h"

namespace tern::model {
namespace {

ModelConfig Tiny() {
  ModelConfig config;
  config.vocab_size = 61;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.context_length = 16;
  config.init_std = 0.2f;
  return config;
}

struct Variant {
  const char* name;
  ModelConfig config;
};

std::vector<Variant> Variants() {
  std::vector<Variant> variants = {
      {"bitlinear", Tiny()},   {"dense", Tiny()},        {"qk_norm_untied_relu2", Tiny()},
      {"plain_llama", Tiny()}, {"every_linear", Tiny()}, {"every_linear_only", Tiny()}};
  variants[1].config.linear = LinearKind::kDense;
  variants[2].config.qk_norm = true;
  variants[2].config.tied_head = false;
  variants[2].config.activation = Activation::kRelu2;
  variants[3].config.sub_norms = SubNorms::kNone;
  variants[3].config.num_kv_heads = 4;
  variants[4].config.sub_norms = SubNorms::kEveryLinear;
  variants[5].config.sub_norms = SubNorms::kEveryLinearOnly;
  return variants;
}

class DecoderTest : public testing::TestWithParam<Variant> {};

at::Tensor RandomTokens(int64_t batch, int64_t tokens, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randint(61, {batch, tokens}, generator, at::kLong);
}

TEST_P(DecoderTest, InitialisationIsAPureFunctionOfSeedAndName) {
  Decoder a(GetParam().config), b(GetParam().config), c(GetParam().config);
  a.Initialize(7);
  b.Initialize(7);
  c.Initialize(8);
  for (size_t i = 0; i < a.parameters().size(); ++i) {
    const Parameter& parameter = a.parameters()[i];
    EXPECT_TRUE(at::equal(parameter.value, b.parameters()[i].value)) << parameter.spec.name;
    if (parameter.spec.role == ParameterRole::kNorm) continue;
    EXPECT_FALSE(at::equal(parameter.value, c.parameters()[i].value)) << parameter.spec.name;
  }
  // Standard error of a standard deviation over n samples is std / sqrt(2 n): five of them.
  const at::Tensor& embedding = a.parameters().front().value;
  EXPECT_NEAR(embedding.std().item<double>(), 0.2,
              5 * 0.2 / std::sqrt(2.0 * double(embedding.numel())));
}

TEST_P(DecoderTest, LaterTokensHaveNoInfluence) {
  Decoder decoder(GetParam().config);
  decoder.Initialize(1);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = RandomTokens(1, 12, 3);
  at::Tensor other = tokens.clone();
  other[0][8] = (tokens[0][8] + 1) % 61;
  const at::Tensor a = decoder.Logits({tokens, {}, {}}, {}),
                   b = decoder.Logits({other, {}, {}}, {});
  EXPECT_TRUE(at::equal(a.narrow(0, 0, 8), b.narrow(0, 0, 8)));
  EXPECT_FALSE(at::equal(a.narrow(0, 8, 4), b.narrow(0, 8, 4)));
}

TEST_P(DecoderTest, PackedDocumentsEqualDocumentsAlone) {
  Decoder decoder(GetParam().config);
  decoder.Initialize(1);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = RandomTokens(1, 10, 3);
  DecoderInput packed;
  packed.tokens_BT = tokens;
  packed.document_ids_BT = at::tensor({0, 0, 0, 0, 1, 1, 1, 1, 1, 1}, at::kInt).unsqueeze(0);
  packed.positions_BT = at::tensor({0, 1, 2, 3, 0, 1, 2, 3, 4, 5}, at::kInt).unsqueeze(0);
  const at::Tensor together = decoder.Logits(packed, {});
  const at::Tensor apart = at::cat({decoder.Logits({tokens.narrow(1, 0, 4), {}, {}}, {}),
                                    decoder.Logits({tokens.narrow(1, 4, 6), {}, {}}, {})});
  // Attention adds in another order (2^-24 relative), and BitLinear turns a difference at a
  // rounding boundary into a whole step of 1/127 of the largest activation.
  const double step = GetParam().config.linear == LinearKind::kBitLinear ? 2.0 / 127 : 1e-4;
  EXPECT_LE((together - apart).abs().max().item<double>(), step * apart.abs().max().item<double>());
}

TEST_P(DecoderTest, RecomputedBlocksGiveTheSameGradients) {
  Decoder decoder(GetParam().config);
  decoder.Initialize(1);
  const at::Tensor tokens = RandomTokens(2, 9, 5),
                   targets = RandomTokens(2, 9, 6).to(at::kInt).view({-1});
  std::vector<std::vector<at::Tensor>> grads;
  for (const bool recompute : {false, true}) {
    ForwardOptions options;
    options.checkpoint_blocks = recompute;
    nn::LossOptions loss_options;
    loss_options.count = 18;
    const at::Tensor h_MD = decoder.Hidden({tokens, {}, {}}, options);
    torch::autograd::backward(
        {nn::ChunkedCrossEntropy(h_MD, decoder.HeadWeight(), targets, loss_options)});
    std::vector<at::Tensor>& run = grads.emplace_back();
    for (const Parameter& parameter : decoder.parameters()) {
      ASSERT_TRUE(parameter.value.grad().defined()) << parameter.spec.name;
      run.push_back(parameter.value.grad().clone());
      parameter.value.mutable_grad() = at::Tensor();
    }
  }
  for (size_t i = 0; i < grads[0].size(); ++i) {
    EXPECT_TRUE(at::equal(grads[0][i], grads[1][i])) << decoder.parameters()[i].spec.name;
  }
}

// Token by token behind a prompt of 5: the logits of one pass over all, for batches of three.
TEST_P(DecoderTest, KeptKeysAndValuesGiveTheSameLogits) {
  Decoder decoder(GetParam().config);
  decoder.Initialize(1);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = RandomTokens(3, 11, 3);
  const at::Tensor whole = decoder.Logits({tokens, {}, {}}, {}).view({3, 11, 61});
  KeyValueCache cache;
  cache.capacity = 11;
  ForwardOptions options;
  options.cache = &cache;
  const at::Tensor prompt =
      decoder.Logits({tokens.narrow(1, 0, 5), {}, {}}, options).view({3, 5, 61});
  // As above: another order of sums, which BitLinear can turn into a step.
  const double step = GetParam().config.linear == LinearKind::kBitLinear ? 2.0 / 127 : 1e-4;
  const double bound = step * whole.abs().max().item<double>();
  EXPECT_LE((prompt - whole.narrow(1, 0, 5)).abs().max().item<double>(), bound);
  for (int64_t t = 5; t < 11; ++t) {
    const at::Tensor next = decoder.Logits({tokens.narrow(1, t, 1), {}, {}}, options);
    EXPECT_LE((next - whole.select(1, t)).abs().max().item<double>(), bound) << t;
  }
  EXPECT_EQ(cache.length, 11);
  EXPECT_THROW(decoder.Logits({tokens.narrow(1, 0, 1), {}, {}}, options), BugError);  // Full
}

INSTANTIATE_TEST_SUITE_P(Variants, DecoderTest, testing::ValuesIn(Variants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tern::model
