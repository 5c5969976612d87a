// A decoder beside a reference: loss, KL and block errors against direct computation.
#include "eval/comparison.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace tern::eval {
namespace {

// Tokens in memory, one document.
class MadeUpTokens : public data::TokenSource {
 public:
  explicit MadeUpTokens(size_t count) {
    RandomStream random(1, "tokens");
    for (size_t i = 0; i < count; ++i)
      tokens_.push_back(static_cast<int32_t>(random.NextU64() % 64));
  }
  int64_t NumTokens(data::Split) const override { return static_cast<int64_t>(tokens_.size()); }
  void Copy(data::Split, int64_t begin, int64_t count, int32_t* out) const override {
    std::copy_n(tokens_.begin() + begin, count, out);
  }
  std::vector<int64_t> DocumentsIn(data::Split, int64_t begin, int64_t) const override {
    return begin == 0 ? std::vector<int64_t>{0} : std::vector<int64_t>{};
  }
  int64_t TextBytes(data::Split) const override { return 0; }
  void CopyLabels(data::Split, int64_t begin, int64_t count, uint8_t* out) const override {
    for (int64_t i = 0; i < count; ++i) out[i] = begin + i < prompt ? 0 : 1;
  }

  int64_t prompt = 0;  // As many first tokens have no label

 private:
  std::vector<int32_t> tokens_;
};

ModelConfig Config(int64_t layers = 2) {
  ModelConfig config;
  config.vocab_size = 64;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_layers = layers;
  config.num_heads = 2;
  config.num_kv_heads = 2;
  config.context_length = 16;
  config.linear = LinearKind::kDense;
  return config;
}

model::Decoder MadeUp(const ModelConfig& config, uint64_t seed, double gain = 20) {
  const at::NoGradGuard no_grad;
  model::Decoder decoder(config);
  decoder.Initialize(seed);
  decoder.HeadWeight().mul_(gain);  // Distributions far from uniform
  return decoder;
}

PerplexityOptions Options() {
  PerplexityOptions options;
  options.sequence_length = 16;
  options.batch = 3;
  return options;
}

TEST(ComparisonTest, HasTheLossesOfPerplexityAndTheKlOfTheLogits) {
  const at::NoGradGuard no_grad;
  const MadeUpTokens tokens(75);  // Windows of 16, the last of 10
  const model::Decoder a = MadeUp(Config(), 1), b = MadeUp(Config(1), 2);
  const Comparison got = Compare(a, b, tokens, Options());
  EXPECT_EQ(got.tokens, 74);
  EXPECT_NEAR(got.loss, Perplexity(a, tokens, Options()).loss, 1e-5);
  EXPECT_NEAR(got.reference_loss, Perplexity(b, tokens, Options()).loss, 1e-5);
  // Window by window, in double.
  double kl = 0;
  for (const data::EvalWindow& window : WindowsToRead(tokens, Options())) {
    std::vector<int32_t> ids(static_cast<size_t>(window.targets));
    tokens.Copy(data::Split::kValidation, window.start, window.targets, ids.data());
    model::DecoderInput input;
    input.tokens_BT = at::tensor(ids, at::kInt).to(at::kLong).view({1, -1});
    const at::Tensor q = at::log_softmax(a.Logits(input, {}).to(at::kDouble), -1),
                     p = at::log_softmax(b.Logits(input, {}).to(at::kDouble), -1);
    kl += (p.exp() * (p - q)).sum().item<double>();
  }
  EXPECT_GT(kl / 74, 0.1);
  EXPECT_NEAR(got.mean_kl, kl / 74, 1e-5);
}

// Means are over the tokens with a label; what is before them stays their context.
TEST(ComparisonTest, PromptsAreReadAndNotPredicted) {
  const at::NoGradGuard no_grad;
  MadeUpTokens tokens(33);  // Two windows of 16
  const model::Decoder a = MadeUp(Config(), 1);
  const double all = Perplexity(a, tokens, Options()).loss * 32;
  PerplexityOptions first = Options();
  first.max_tokens = 16;
  const double of_first = Perplexity(a, tokens, first).loss * 16;
  tokens.prompt = 17;  // All that the first window predicts
  const PerplexityResult answers = Perplexity(a, tokens, Options());
  EXPECT_EQ(answers.tokens, 16);
  EXPECT_NEAR(answers.loss, (all - of_first) / 16, 1e-5);  // Sums of 32 fp32 losses of about 10
  const Comparison compared = Compare(a, a, tokens, Options());
  EXPECT_EQ(compared.tokens, 16);
  EXPECT_NEAR(compared.loss, answers.loss, 1e-5);
  tokens.prompt = 33;
  EXPECT_THROW(Perplexity(a, tokens, Options()), InputError);
  EXPECT_THROW(Compare(a, a, tokens, Options()), InputError);
}

TEST(ComparisonTest, OfAModelWithItselfIsZero) {
  const MadeUpTokens tokens(40);
  const model::Decoder decoder = MadeUp(Config(), 3);
  EXPECT_EQ(Compare(decoder, decoder, tokens, Options()).mean_kl, 0);
  for (const double error : BlockErrors(decoder, decoder, tokens, Options())) EXPECT_EQ(error, 0);
}

// A block that is changed shows in its own output and in those after it.
TEST(ComparisonTest, BlockErrorsBeginAtTheBlockThatDiffers) {
  const MadeUpTokens tokens(40);
  const model::Decoder reference = MadeUp(Config(3), 3), changed = MadeUp(Config(3), 3);
  {
    const at::NoGradGuard no_grad;
    changed.Get("model.layers.1.mlp.down_proj.weight").mul_(1.5);
  }
  const std::vector<double> errors = BlockErrors(changed, reference, tokens, Options());
  ASSERT_EQ(errors.size(), 3u);
  EXPECT_EQ(errors[0], 0);
  EXPECT_GT(errors[1], 1e-6);
  EXPECT_GT(errors[2], 1e-6);
  EXPECT_TRUE(BlockErrors(MadeUp(Config(2), 3), reference, tokens, Options()).empty());
}

TEST(ComparisonTest, OtherVocabulariesAreRefused) {
  ModelConfig other = Config();
  other.vocab_size = 65;
  EXPECT_THROW(Compare(MadeUp(Config(), 1), MadeUp(other, 1), MadeUpTokens(20), Options()),
               InputError);
}

}  // namespace
}  // namespace tern::eval
