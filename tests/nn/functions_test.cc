// The other autograd functions against libtorch's own composed operations.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include "nn/attention.h"
#include "nn/checkpoint_block.h"
#include "nn/fused_ops.h"
#include "nn/loss.h"
#include "nn/precision.h"

namespace tern::nn {
namespace {

at::Tensor Leaf(at::IntArrayRef shape, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator).set_requires_grad(true);
}

// Gradients of sum(y * weights) with respect to the leaves, which are cleared.
std::vector<at::Tensor> Gradients(const at::Tensor& y, const std::vector<at::Tensor>& leaves) {
  torch::autograd::backward({y}, {Leaf(y.sizes(), 99).detach()});
  std::vector<at::Tensor> grads;
  for (const at::Tensor& leaf : leaves) {
    grads.push_back(leaf.grad().clone());
    leaf.mutable_grad() = at::Tensor();
  }
  return grads;
}

// Both compute in fp32 in different orders; sums have up to a few hundred terms of order 1.
void ExpectSame(const at::Tensor& a, const at::Tensor& b, double tolerance = 2e-5) {
  EXPECT_LE((a - b).abs().max().item<double>(),
            tolerance * std::max(1.0, b.abs().max().item<double>()));
}

void ExpectSameWithGradients(const at::Tensor& ours, const at::Tensor& theirs,
                             const std::vector<at::Tensor>& leaves) {
  ExpectSame(ours, theirs);
  const auto a = Gradients(ours, leaves), b = Gradients(theirs, leaves);
  for (size_t i = 0; i < leaves.size(); ++i) ExpectSame(a[i], b[i]);
}

TEST(RmsNormTest, EqualsTheComposition) {
  for (const int64_t d : {1, 7, 64, 256, 300}) {
    const at::Tensor x = Leaf({33, d}, 1), g = Leaf({d}, 2);
    const at::Tensor plain = x * (x.square().mean(-1, true) + 1e-5).rsqrt() * g;
    ExpectSameWithGradients(RmsNorm(x, g, 1e-5f), plain, {x, g});
  }
}

TEST(GatedActivationTest, EqualsTheComposition) {
  const at::Tensor gate = Leaf({19, 77}, 1), up = Leaf({19, 77}, 2);
  ExpectSameWithGradients(GatedActivation(gate, up, Activation::kSilu), at::silu(gate) * up,
                          {gate, up});
  ExpectSameWithGradients(GatedActivation(gate, up, Activation::kRelu2),
                          at::relu(gate).square() * up, {gate, up});
}

TEST(RopeTest, EqualsTheComplexRotation) {
  const int64_t rows = 12, heads = 3, e = 8;
  const at::Tensor x = Leaf({rows, heads, e}, 1);
  const at::Tensor positions = at::arange(rows, at::kInt) * 5 % 31;
  const RopeTables tables = MakeRopeTables(31, e, 10000.0);
  const at::Tensor frequency = at::pow(10000.0, -2.0 * at::arange(e / 2, at::kDouble) / double(e));
  const at::Tensor angle =
      (positions.to(at::kDouble).unsqueeze(1) * frequency).unsqueeze(1).to(at::kFloat);
  const at::Tensor a = x.narrow(2, 0, e / 2), b = x.narrow(2, e / 2, e / 2);
  const at::Tensor plain =
      at::cat({a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()}, 2);
  ExpectSameWithGradients(Rope(x, positions, tables), plain, {x});
}

TEST(DenseLinearTest, EqualsTheProductAndItsGradients) {
  const at::Tensor x = Leaf({21, 40}, 1), w = Leaf({13, 40}, 2);
  ExpectSameWithGradients(DenseLinear(x, w, ComputeType::kFp32), at::mm(x, w.t()), {x, w});
}

// Operands with few significant bits are exact in BF16, and their small integer products too.
TEST(MatMulTest, Bf16IsExactForSmallIntegers) {
  const at::Tensor a = at::randint(-8, 8, {16, 32}).to(at::kFloat),
                   b = at::randint(-1, 2, {32, 8}).to(at::kFloat);
  EXPECT_TRUE(at::equal(MatMul(a, b, ComputeType::kBf16), at::mm(a, b)));
  EXPECT_TRUE(at::equal(MatMul(a, b, ComputeType::kFp16), at::mm(a, b)));
}

TEST(MatMulTest, RoundsHalfToEven) {
  const at::Tensor x = at::tensor({1.0f + 0x1.0p-8f, 1.0f + 3 * 0x1.0p-8f, 65504.0f, 1e-8f});
  EXPECT_TRUE(at::equal(RoundTo(x, ComputeType::kBf16).narrow(0, 0, 2),
                        at::tensor({1.0f, 1.0f + 0x1.0p-6f})));
  EXPECT_EQ(RoundTo(x, ComputeType::kFp16)[2].item<float>(), 65504.0f);
  EXPECT_EQ(RoundTo(x, ComputeType::kFp16)[3].item<float>(), 0.0f)
      << "underflows: why fp16 needs loss scaling";
  EXPECT_TRUE(at::equal(RoundTo(x, ComputeType::kFp32), x));
}

struct LossCase {
  int64_t rows, vocabulary, chunk;
};

class LossTest : public testing::TestWithParam<LossCase> {};

TEST_P(LossTest, EqualsCrossEntropyWithGradients) {
  const auto [rows, vocabulary, chunk] = GetParam();
  const at::Tensor h = Leaf({rows, 24}, 1), head = Leaf({vocabulary, 24}, 2);
  at::Tensor targets = at::randint(0, vocabulary, {rows}).to(at::kInt);
  if (rows > 2) targets[1] = -1;
  const double count = (targets >= 0).sum().item<double>();
  LossOptions options;
  options.chunk_rows = chunk;
  options.count = count;
  options.grad_scale = 8.0;
  const at::Tensor loss = ChunkedCrossEntropy(h, head, targets, options);
  torch::autograd::backward({loss});
  const at::Tensor dh = h.grad() / 8.0, dhead = head.grad() / 8.0;
  h.mutable_grad() = at::Tensor();
  head.mutable_grad() = at::Tensor();
  const at::Tensor plain = at::cross_entropy_loss(at::mm(h, head.t()), targets.to(at::kLong), {},
                                                  at::Reduction::Sum, -1) /
                           count;
  torch::autograd::backward({plain});
  EXPECT_NEAR(loss.item<double>(), plain.item<double>(), 1e-5);
  ExpectSame(dh, h.grad());
  ExpectSame(dhead, head.grad());
}

INSTANTIATE_TEST_SUITE_P(Cases, LossTest,
                         testing::Values(LossCase{1, 2, 8}, LossCase{5, 33, 2},
                                         LossCase{64, 100, 64}, LossCase{65, 257, 16}));

TEST(CausalAttentionTest, PackedDocumentsDoNotSeeEachOther) {
  const int64_t t = 10, e = 8;
  const at::Tensor q = Leaf({1, t, 4, e}, 1), k = Leaf({1, t, 2, e}, 2), v = Leaf({1, t, 2, e}, 3);
  const at::Tensor ids = at::tensor({0, 0, 0, 0, 1, 1, 1, 1, 1, 1}, at::kInt).unsqueeze(0);
  const at::Tensor packed = CausalAttention(q, k, v, DocumentMask(ids), ComputeType::kFp32);
  const auto part = [&](int64_t begin, int64_t count) {
    return CausalAttention(q.narrow(1, begin, count), k.narrow(1, begin, count),
                           v.narrow(1, begin, count), {}, ComputeType::kFp32);
  };
  ExpectSame(packed, at::cat({part(0, 4), part(4, 6)}, 1));
  EXPECT_GT((packed - CausalAttention(q, k, v, {}, ComputeType::kFp32)).abs().max().item<double>(),
            1e-3);
}

TEST(CausalAttentionTest, LaterTokensHaveNoInfluence) {
  const at::Tensor q = Leaf({2, 9, 4, 8}, 1), k = Leaf({2, 9, 2, 8}, 2);
  at::Tensor v = Leaf({2, 9, 2, 8}, 3).detach().clone();
  const at::Tensor before = CausalAttention(q, k, v, {}, ComputeType::kFp32);
  v.narrow(1, 6, 3).add_(100);
  const at::Tensor after = CausalAttention(q, k, v, {}, ComputeType::kFp32);
  EXPECT_TRUE(at::equal(before.narrow(1, 0, 6), after.narrow(1, 0, 6)));
  EXPECT_FALSE(at::equal(before, after));
}

TEST(CheckpointBlockTest, SameValueAndGradientsRunTwice) {
  const at::Tensor x = Leaf({5, 6}, 1), w = Leaf({6, 6}, 2);
  int runs = 0, recomputes = 0;
  const auto block = [&](const at::Tensor& in, bool recompute) {
    ++runs;
    recomputes += recompute;
    return at::tanh(at::mm(in, w)) + in;
  };
  const at::Tensor y = CheckpointBlock(x, block);
  const auto ours = Gradients(y, {x, w});
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(recomputes, 1);
  const at::Tensor plain = at::tanh(at::mm(x, w)) + x;
  const auto theirs = Gradients(plain, {x, w});
  EXPECT_TRUE(at::equal(y, plain));
  EXPECT_TRUE(at::equal(ours[0], theirs[0]));
  EXPECT_TRUE(at::equal(ours[1], theirs[1]));
}

}  // namespace
}  // namespace tern::nn
