// The decoder on a device that is not the CPU (tests/testing/other_device.h): it follows no raw
// pointer, mixes no devices, and computes what it computes on the CPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/batch_input.h"
#include "model/checkpoint_io.h"
#include "model/decoder.h"
#include "nn/loss.h"
#include "tests/testing/other_device.h"

namespace tern::model {
namespace {

using tern::testing::kOther;

ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 64;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.context_length = 16;
  return config;
}

data::Batch Batch(bool documents) {
  data::Batch batch;
  batch.batch = 3;
  batch.tokens = 16;
  for (int i = 0; i < 48; ++i) {
    batch.inputs.push_back(i * 7 % 64);
    batch.targets.push_back(i % 5 == 0 ? -1 : (i + 1) * 7 % 64);
    if (!documents) continue;
    batch.positions.push_back(i % 8);
    batch.document_ids.push_back(i / 8);
  }
  return batch;
}

// The loss, and every parameter's gradient.
std::pair<double, std::vector<at::Tensor>> Step(const Decoder& decoder, bool documents,
                                                const ForwardOptions& options) {
  const data::Batch batch = Batch(documents);
  nn::LossOptions loss_options;
  loss_options.count = 38;
  loss_options.chunk_rows = 20;
  loss_options.compute = options.compute;
  const at::Tensor loss = nn::ChunkedCrossEntropy(
      decoder.Hidden(InputOf(batch, 0, 3, decoder.device()), options), decoder.HeadWeight(),
      TargetsOf(batch, 0, 3, decoder.device()), loss_options);
  torch::autograd::backward({loss}, {});
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : decoder.parameters()) {
    at::Tensor value = parameter.value;
    gradients.push_back(value.grad().cpu());
    value.mutable_grad() = at::Tensor();
  }
  return {loss.item<double>(), gradients};
}

// fp32 sums of up to 64 terms in another order: each gradient within 64 units of rounding (4e-6) of
// its matrix's largest, times the four layers of products that errors pass through.
void ExpectSame(const Decoder& decoder, bool documents, const ForwardOptions& options) {
  const auto [want, want_gradients] = Step(decoder, documents, options);
  const auto [found, gradients] = Step(decoder.To(kOther), documents, options);
  EXPECT_NEAR(found, want, 1e-6 * want);
  for (size_t i = 0; i < gradients.size(); ++i) {
    const double most = want_gradients[i].abs().max().item<double>();
    EXPECT_LE((gradients[i] - want_gradients[i]).abs().max().item<double>(), 2e-5 * most)
        << decoder.parameters()[i].spec.name;
  }
}

// That the device is closed: following a pointer into it dies, mixing throws.
TEST(OtherDeviceDeathTest, CatchesWhatAGpuWould) {
  const at::Tensor x = at::ones({4}, kOther), host = at::ones({4});
  EXPECT_DEATH(*static_cast<volatile float*>(x.data_ptr()) = 1, "");
  EXPECT_ANY_THROW(x + host);
  EXPECT_EQ((x + x).sum().item<float>(), 8.0f);
}

// Codes, scales and int8 products are integers: one layer's output has the CPU's bits.
TEST(DecoderDeviceTest, BitLinearHasTheCpusBits) {
  const at::Tensor x_MK = at::randn({33, 200}), w_NK = at::randn({96, 200});
  const at::Tensor want = nn::BitLinear(x_MK, {w_NK}, {})[0];
  const at::Tensor found = nn::BitLinear(x_MK.to(kOther), {w_NK.to(kOther)}, {})[0];
  EXPECT_EQ(found.device(), kOther);
  EXPECT_TRUE(at::equal(found.cpu(), want));
}

TEST(DecoderDeviceTest, LossAndGradientsAreTheCpus) {
  ModelConfig config = Config();
  Decoder plain(config);
  plain.Initialize(1);
  ExpectSame(plain, /*documents=*/false, {});
  config.sub_norms = SubNorms::kEveryLinear;
  config.qk_norm = config.qkv_bias = true;
  config.activation = Activation::kRelu2;
  config.tied_head = false;
  Decoder rich(config);
  rich.Initialize(2);
  ExpectSame(rich, /*documents=*/true, {.checkpoint_blocks = true});
  ExpectSame(rich, /*documents=*/true, {.quantized_share = 0.5});
}

// BF16 products round their sums on this device (HasNativeBf16), as GPUs do: 2^-8 each.
TEST(DecoderDeviceTest, RunsInBf16) {
  Decoder decoder(Config());
  decoder.Initialize(3);
  const ForwardOptions options{.compute = nn::ComputeType::kBf16};
  EXPECT_NEAR(Step(decoder.To(kOther), false, options).first, Step(decoder, false, options).first,
              0.02);
}

// Token by token behind a prompt, against one pass on the CPU: sums in another order. In a
// BitLinear that can turn a value at the border of two codes, a step of 1/127 of its row, which the
// rows that see it carry on: in one of three sequences at most, and no more than a few steps come
// of it.
TEST(DecoderDeviceTest, KeptKeysAndValuesGiveTheCpusLogits) {
  for (const LinearKind linear : {LinearKind::kDense, LinearKind::kBitLinear}) {
    ModelConfig config = Config();
    config.linear = linear;
    Decoder here(config);
    here.Initialize(5);
    const Decoder there = here.To(kOther);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = at::arange(27, at::kInt).view({3, 9}), moved = tokens.to(kOther);
    const at::Tensor whole = here.Logits({tokens, {}, {}}, {}).view({3, 9, 64});
    KeyValueCache cache;
    cache.capacity = 9;
    ForwardOptions options;
    options.cache = &cache;
    std::vector<at::Tensor> parts = {
        there.Logits({moved.narrow(1, 0, 4), {}, {}}, options).cpu().view({3, 4, 64})};
    for (int64_t t = 4; t < 9; ++t) {
      parts.push_back(
          there.Logits({moved.narrow(1, t, 1), {}, {}}, options).cpu().view({3, 1, 64}));
    }
    const at::Tensor differences = (at::cat(parts, 1) - whole).abs().amax({1, 2});  // A sequence
    const double largest = whole.abs().max().item<double>();
    EXPECT_LE((differences > 1e-4 * largest).sum().item<int64_t>(),
              linear == LinearKind::kBitLinear ? 1 : 0)
        << differences;
    EXPECT_LE(differences.max().item<double>(), 8.0 / 127 * largest);
  }
}

TEST(DecoderDeviceTest, ValuesGoThroughTheHost) {
  Decoder there(Config(), kOther), here(Config());
  there.Initialize(4);
  here.Initialize(4);
  for (size_t i = 0; i < here.parameters().size(); ++i)
    EXPECT_TRUE(at::equal(there.parameters()[i].value.cpu(), here.parameters()[i].value));
  FillThroughHost(there.parameters()[0].value, [&](void* data) {
    std::fill_n(static_cast<float*>(data), there.parameters()[0].value.numel(), 0.5f);
  });
  EXPECT_EQ(there.parameters()[0].value.sum().item<float>(), 0.5f * 64 * 32);
}

}  // namespace
}  // namespace tern::model
