// BitLinear against a plain composition of ATen operations with straight-through rounding: values
// and gradients.
#include "nn/bit_linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <list>

namespace tern::nn {
namespace {

at::Tensor Leaf(at::IntArrayRef shape, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator).set_requires_grad(true);
}

// x + (q - x) without a gradient through the bracket: the straight-through estimator, as research
// code writes it.
at::Tensor StraightThrough(const at::Tensor& x, const at::Tensor& q) {
  return x + (q - x).detach();
}

at::Tensor ComposedBitLinear(const at::Tensor& x_MK, const at::Tensor& w_NK) {
  const float beta = quant::QuantizeTernary(w_NK.detach()).beta;
  const at::Tensor wq = (w_NK * (1.0f / beta)).round().clamp(-1, 1) * beta;
  const at::Tensor gamma_M1 = x_MK.abs().amax({1}, true).clamp_min(1e-5);
  const at::Tensor xq = (x_MK * (127.0f / gamma_M1)).round().clamp(-128, 127) * (gamma_M1 / 127.0f);
  return at::mm(StraightThrough(x_MK, xq), StraightThrough(w_NK, wq).t());
}

struct Shape {
  int64_t m, k, n;
};

class BitLinearTest : public testing::TestWithParam<Shape> {};

TEST_P(BitLinearTest, GradientsEqualThePlainComposition) {
  const auto [m, k, n] = GetParam();
  const at::Tensor x = Leaf({m, k}, 1), w = Leaf({n, k}, 2), seed = Leaf({m, n}, 3).detach();
  const at::Tensor y = BitLinear(x, {w}, {})[0];
  torch::autograd::backward({y}, {seed});
  const at::Tensor dx = x.grad().clone(), dw = w.grad().clone();
  x.mutable_grad() = at::Tensor();
  w.mutable_grad() = at::Tensor();
  const at::Tensor plain = ComposedBitLinear(x, w);
  torch::autograd::backward({plain}, {seed});
  // fp32 sums of up to max(m, k, n) products of size about 3: error below length * 2^-24 * 10.
  const double tolerance = static_cast<double>(std::max({m, k, n})) * 6e-8 * 10 + 1e-5;
  EXPECT_LE((y - plain).abs().max().item<double>(), tolerance * 10);
  EXPECT_LE((dx - x.grad()).abs().max().item<double>(), tolerance * 10);
  EXPECT_LE((dw - w.grad()).abs().max().item<double>(), tolerance * 10);
}

TEST_P(BitLinearTest, SharedInputEqualsSeparateCalls) {
  const auto [m, k, n] = GetParam();
  const at::Tensor x = Leaf({m, k}, 1), w1 = Leaf({n, k}, 2), w2 = Leaf({n + 1, k}, 4);
  const auto both = BitLinear(x, {w1, w2}, {});
  EXPECT_TRUE(at::equal(both[0], BitLinear(x, {w1}, {})[0]));
  EXPECT_TRUE(at::equal(both[1], BitLinear(x, {w2}, {})[0]));
  torch::autograd::backward({both[0].sum() + both[1].sum()});
  const at::Tensor dx = x.grad().clone(), dw2 = w2.grad().clone();
  x.mutable_grad() = at::Tensor();
  w2.mutable_grad() = at::Tensor();
  torch::autograd::backward({BitLinear(x, {w1}, {})[0].sum() + BitLinear(x, {w2}, {})[0].sum()});
  EXPECT_TRUE(at::allclose(dx, x.grad(), 1e-5, 1e-5));
  EXPECT_TRUE(at::equal(dw2, w2.grad()));
}

// BF16 keeps 8 significant bits: each rounded operand is off by at most 2^-9, products of exact
// codes stay exact, and libtorch's own BF16 product rounds its result once more. Relative to the
// largest entry: 2^-9 + 2^-9, times 2 of slack for entries that are sums of larger terms.
TEST_P(BitLinearTest, LowPrecisionGradientsStayWithinTheirRounding) {
  const auto [m, k, n] = GetParam();
  const at::Tensor x = Leaf({m, k}, 1), w = Leaf({n, k}, 2), seed = Leaf({m, n}, 3).detach();
  torch::autograd::backward({BitLinear(x, {w}, {})[0]}, {seed});
  const at::Tensor dx = x.grad().clone(), dw = w.grad().clone();
  for (const ComputeType compute : {ComputeType::kBf16, ComputeType::kFp16}) {
    x.mutable_grad() = at::Tensor();
    w.mutable_grad() = at::Tensor();
    const at::Tensor y = BitLinear(x, {w}, {compute, nullptr, ""})[0];
    EXPECT_TRUE(at::equal(y, BitLinear(x, {w}, {})[0]))
        << "the forward is exact in every precision";
    torch::autograd::backward({y}, {seed});
    const double limit = 2 * 2 * 0x1.0p-9;
    EXPECT_LE((dx - x.grad()).abs().max().item<double>(), limit * dx.abs().max().item<double>());
    EXPECT_LE((dw - w.grad()).abs().max().item<double>(), limit * dw.abs().max().item<double>());
    EXPECT_FALSE(at::equal(dx, x.grad()) && n > 1) << "nothing was rounded";
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, BitLinearTest,
                         testing::Values(Shape{1, 1, 1}, Shape{3, 130, 5}, Shape{17, 256, 64},
                                         Shape{64, 300, 33}, Shape{257, 512, 129}));

// Between dense and ternary: value and gradients of the product of the blended operands.
TEST_P(BitLinearTest, AShareBlendsInputsAndWeights) {
  const auto [m, k, n] = GetParam();
  const at::Tensor x = Leaf({m, k}, 1), w = Leaf({n, k}, 2), seed = Leaf({m, n}, 3).detach();
  BitLinearOptions options;
  options.share = 0.25;
  const at::Tensor y = BitLinear(x, {w}, options)[0];
  torch::autograd::backward({y}, {seed});
  const quant::Int8Rows xq = quant::QuantizeRows(x.detach());
  const quant::TernaryWeight wq = quant::QuantizeTernary(w.detach());
  const at::Tensor xb = 0.75 * x.detach() + 0.25 * quant::Dequantize(xq),
                   wb = 0.75 * w.detach() + 0.25 * quant::Dequantize(wq, wq.beta);
  const double tolerance = (static_cast<double>(std::max({m, k, n})) * 6e-8 * 10 + 1e-5) * 10;
  EXPECT_LE((y - at::mm(xb, wb.t())).abs().max().item<double>(), tolerance);
  EXPECT_LE((x.grad() - at::mm(seed, wb)).abs().max().item<double>(), tolerance);
  EXPECT_LE((w.grad() - at::mm(seed.t(), xb)).abs().max().item<double>(), tolerance);
}

// A frozen matrix's gradient is not even made; the others' and the input's are what they were.
TEST(BitLinearTest, FrozenMatricesCostNoGradient) {
  struct Source : WeightSource {
    const quant::TernaryWeight& Ternary(const at::Tensor& w_NK) override {
      return weights.emplace_back(quant::QuantizeTernary(w_NK.detach()));
    }
    bool TakeGradient(const at::Tensor& /*w_NK*/, const at::Tensor& dw_NK) override {
      made.push_back(dw_NK.size(0));
      return false;
    }
    std::list<quant::TernaryWeight> weights;
    std::vector<int64_t> made;
  };
  const at::Tensor frozen = Leaf({4, 8}, 2).detach(), seed_4 = Leaf({6, 4}, 3).detach(),
                   seed_5 = Leaf({6, 5}, 4).detach();
  std::vector<at::Tensor> dx, dw;
  for (const bool trains : {false, true}) {
    Source source;
    BitLinearOptions options;
    options.source = &source;
    const at::Tensor x = Leaf({6, 8}, 1), w = Leaf({5, 8}, 5);
    const auto y =
        BitLinear(x, {trains ? frozen.clone().set_requires_grad(true) : frozen, w}, options);
    torch::autograd::backward(y, {seed_4, seed_5});
    EXPECT_EQ(source.made, trains ? std::vector<int64_t>({4, 5}) : std::vector<int64_t>({5}));
    dx.push_back(x.grad());
    dw.push_back(w.grad());
  }
  EXPECT_TRUE(at::equal(dx[0], dx[1]));
  EXPECT_TRUE(at::equal(dw[0], dw[1]));
}

TEST(BitLinearTest, ObserverSeesWhatWasQuantized) {
  struct Observer : BitLinearObserver {
    void OnActivations(std::string_view group, const quant::Int8Rows& x) override {
      name = group;
      rows = x.q_MK.size(0);
    }
    std::string name;
    int64_t rows = 0;
  } observer;
  BitLinear(Leaf({6, 8}, 1), {Leaf({4, 8}, 2)}, {ComputeType::kFp32, &observer, "qkv"});
  EXPECT_EQ(observer.name, "qkv");
  EXPECT_EQ(observer.rows, 6);
}

}  // namespace
}  // namespace tern::nn
