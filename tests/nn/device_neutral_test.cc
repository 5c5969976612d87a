// The fused operations in libtorch's own beside the CPU kernels, both on the CPU: values and
// gradients within fp32 rounding, Rope to the bit. u = 2^-24 is fp32's unit of rounding.
#include "nn/device_neutral.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "nn/fused_ops.h"
#include "nn/loss.h"

namespace tern::nn {
namespace {

constexpr double kUnit = 0x1p-24;

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed));
}

// y and the gradients of sum(y * weights).
std::vector<at::Tensor> ValueAndGradients(
    const std::function<at::Tensor(const std::vector<at::Tensor>&)>& f,
    const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs) leaves.push_back(input.clone().set_requires_grad(true));
  const at::Tensor y = f(leaves);
  torch::autograd::backward({y}, {Random(y.sizes(), 99)});
  std::vector<at::Tensor> out = {y.detach()};
  for (const at::Tensor& leaf : leaves) out.push_back(leaf.grad());
  return out;
}

// |a - b| <= roundings * u * scale, element by element.
void ExpectWithin(const at::Tensor& a, const at::Tensor& b, double roundings,
                  const at::Tensor& scale) {
  const at::Tensor over = (a - b).abs().to(at::kDouble) - roundings * kUnit * scale.to(at::kDouble);
  EXPECT_LE(over.max().item<double>(), 0) << "shape " << a.sizes();
}

// y: both round the sum of D squares (each at most D roundings, in relative terms, since all are
// positive; half of them in the root), the division, the root and two products: (D + 12) u |y|.
// dx and dg are sums of terms of both signs: the bound holds of the sums of their magnitudes.
TEST(NeutralRmsNormTest, IsWithinRoundingOfTheKernel) {
  for (const int64_t d : {1, 7, 64, 300}) {
    for (const int64_t rows : {1, 33}) {
      const at::Tensor x = Random({rows, d}, 1), g = Random({d}, 2), dy = Random({rows, d}, 99);
      const auto want =
          ValueAndGradients([](const auto& in) { return RmsNorm(in[0], in[1], 1e-5f); }, {x, g});
      const auto found = ValueAndGradients(
          [](const auto& in) { return neutral::RmsNorm(in[0], in[1], 1e-5f); }, {x, g});
      const double roundings = static_cast<double>(d) + 12;
      ExpectWithin(found[0], want[0], roundings, want[0].abs());
      const at::Tensor inverse = (x.square().mean(1, true) + 1e-5).rsqrt();
      const at::Tensor dx_scale =
          (dy * g).abs() * inverse +
          x.abs() * inverse.pow(3) * (dy * g * x).abs().mean(1, /*keepdim=*/true);
      ExpectWithin(found[1], want[1], 3 * roundings, dx_scale);
      ExpectWithin(found[2], want[2], roundings + static_cast<double>(rows),
                   (dy * x * inverse).abs().sum(0));
    }
  }
}

TEST(NeutralRopeTest, HasTheKernelsBits) {
  for (const auto& [rows, heads, e] :
       {std::tuple<int64_t, int64_t, int64_t>{1, 1, 2}, {12, 3, 8}, {50, 5, 64}}) {
    const RopeTables tables = MakeRopeTables(rows + 7, e, 10000.0);
    const at::Tensor positions = at::arange(rows, at::kInt) + 5;
    const at::Tensor x = Random({rows, heads, e}, 1);
    const auto want =
        ValueAndGradients([&](const auto& in) { return Rope(in[0], positions, tables); }, {x});
    const auto found = ValueAndGradients(
        [&](const auto& in) {
          return neutral::Rope(in[0], positions, tables.cos_TE2, tables.sin_TE2);
        },
        {x});
    EXPECT_TRUE(at::equal(found[0], want[0]));
    EXPECT_TRUE(at::equal(found[1], want[1]));
  }
}

// SiLU: exp of both is within 4 u, 1 + exp, the division and two products round once each; the
// slope s (1 + z (1 - s)) loses what 1 - s cancels: relative to |s| (1 + |z|). Squared ReLU: the
// same products.
TEST(NeutralGatedActivationTest, IsWithinRoundingOfTheKernel) {
  const at::Tensor gate = 4 * Random({19, 77}, 1), up = Random({19, 77}, 2),
                   dh = Random({19, 77}, 99);
  for (const Activation activation : {Activation::kSilu, Activation::kRelu2}) {
    const auto want = ValueAndGradients(
        [&](const auto& in) { return GatedActivation(in[0], in[1], activation); }, {gate, up});
    const auto found = ValueAndGradients(
        [&](const auto& in) { return neutral::GatedActivation(in[0], in[1], activation); },
        {gate, up});
    ExpectWithin(found[0], want[0], 16, want[0].abs());
    ExpectWithin(found[1], want[1], 32, (dh * up).abs() * (1 + gate.abs()));
    ExpectWithin(found[2], want[2], 16, want[2].abs());
  }
}

// The sum of V exponentials (all positive) has at most V / 16 + 4 roundings in the kernel's lanes
// and V in any order; its logarithm carries them as an absolute error. The exponents z - max are
// rounded at their size, Z. Probabilities carry both as a relative error.
TEST(NeutralCrossEntropyTest, IsWithinRoundingOfTheKernel) {
  for (const int64_t v : {1, 5, 257, 4096}) {
    const int64_t rows = 9;
    const at::Tensor logits = 3 * Random({rows, v}, 1);
    at::Tensor targets = at::arange(rows, at::kInt).remainder(v);
    targets[3] = -1;
    constexpr double kFactor = 0.25;
    const at::Tensor a = logits.clone(), b = logits.clone();
    const double want = CrossEntropyRows(a, targets, kFactor);
    const double found = neutral::CrossEntropyRows(b, targets, kFactor);
    const double z = 2 * logits.abs().max().item<double>();
    const double roundings = static_cast<double>(v) + 8 + 4 * z;
    EXPECT_NEAR(found, want, static_cast<double>(rows) * roundings * kUnit);
    // The target's gradient is p - 1: rounded at the size of 1, not of the difference.
    ExpectWithin(b, a, roundings + 4, kFactor * at::ones_like(a));
    EXPECT_EQ(b[3].abs().max().item<float>(), 0.0f);
  }
}

}  // namespace
}  // namespace tern::nn
