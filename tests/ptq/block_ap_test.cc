// Block-AP's steps against gradients of the formula by autograd. The first step of Adam moves
// everything by its rate against the sign of its gradient.
#include "ptq/block_ap.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ptq/adam.h"

namespace tern::ptq {
namespace {

using quant::QuantizedWeight;
using quant::WeightFormat;

constexpr int64_t kRows = 6, kColumns = 96, kGroup = 32;

class BlockApTest : public ::testing::TestWithParam<std::pair<int, bool>> {
 protected:
  BlockApTest() {
    auto generator = at::detail::createCPUGenerator(11);
    w_NK_ = at::empty({kRows, kColumns}, at::kFloat).normal_(0.01, 0.1, generator);
    gradient_NK_ = at::empty({kRows, kColumns}, at::kFloat).normal_(0, 1, generator);
    const auto [bits, symmetric] = GetParam();
    format_ = quant::IntFormat(bits, kGroup, symmetric, quant::ScaleDtype::kF32);
    start_ = quant::Quantize(w_NK_, format_);
    start_.scales.scale_RC.mul_(0.6);  // So that weights of both signs are clipped
    start_ = quant::QuantizeWith(w_NK_, format_, start_.scales);
  }

  // dL/dw [N, K], dL/ds and dL/dz [N, G] of L = sum(gradient * value).
  struct Gradients {
    at::Tensor w, s, z;
  };
  Gradients Wanted() const {
    const quant::Grid grid = format_.grid();
    const auto leaf = [](const at::Tensor& x) {
      return x.detach().clone().set_requires_grad(true);
    };
    const at::Tensor w = leaf(w_NK_), s = leaf(start_.scales.scale_RC),
                     z = leaf(format_.symmetric ? at::zeros_like(s) : start_.scales.zero_RC);
    const auto spread = [](const at::Tensor& x) { return x.repeat_interleave(kGroup, 1); };
    const at::Tensor u = w / spread(s) + spread(z), code = u.detach().round();
    const at::Tensor passed = u * (code >= grid.lo).logical_and(code <= grid.hi);
    // The code; its gradient is that of u where it is not clipped.
    const at::Tensor q = passed + (code.clamp(grid.lo, grid.hi) - passed).detach();
    const at::Tensor value = (q - spread(z)) * spread(s);
    EXPECT_TRUE(at::allclose(value, quant::Dequantize(start_), 1e-5, 1e-7));
    torch::autograd::backward({(value * gradient_NK_).sum()}, {});
    return {w.grad(), s.grad(), z.grad()};
  }

  QuantizedWeight Stepped(const recipe::BlockApSettings& settings) const {
    const auto matrix = BlockAp(w_NK_, start_, settings);
    EXPECT_TRUE(at::equal(matrix->Values(), quant::Dequantize(start_)));
    matrix->Step(gradient_NK_, 1);
    EXPECT_TRUE(at::equal(matrix->Values(), quant::Dequantize(matrix->Weight())));
    return matrix->Weight();
  }

  at::Tensor w_NK_, gradient_NK_;
  WeightFormat format_;
  QuantizedWeight start_;
};

INSTANTIATE_TEST_SUITE_P(Formats, BlockApTest,
                         ::testing::Values(std::pair{2, true}, std::pair{3, false},
                                           std::pair{4, true}, std::pair{2, false}));

TEST(AdamTest, FirstStepIsTheRateAgainstTheSign) {
  Adam adam(at::tensor({1.0f, 2.0f, 3.0f, 4.0f}), {});
  adam.Step(at::tensor({0.5f, -0.001f, 0.0f, 30.0f}), 0.25);
  EXPECT_TRUE(at::allclose(adam.value(), at::tensor({0.75f, 2.25f, 3.0f, 3.75f}), 1e-4, 0))
      << adam.value();
}

TEST_P(BlockApTest, WeightsFollowTheirGradients) {
  const Gradients wanted = Wanted();
  EXPECT_GT((wanted.w == 0).sum().item<int64_t>(), 0);  // Clipped
  const double rate = 0.03;
  const at::Tensor moved_NK = w_NK_ - rate * wanted.w.sign();
  const QuantizedWeight got = Stepped({rate, 0});
  const QuantizedWeight want = quant::QuantizeWith(moved_NK, format_, start_.scales);
  EXPECT_TRUE(at::equal(got.scales.scale_RC, start_.scales.scale_RC));
  // A weight within 1e-6 of the middle between two codes may go to either.
  EXPECT_LE((got.codes_NK != want.codes_NK).sum().item<int64_t>(), 1);
  EXPECT_GT((got.codes_NK != start_.codes_NK).sum().item<int64_t>(), 10);
}

TEST_P(BlockApTest, ScalesFollowTheirGradients) {
  const double rate = 1e-3;
  const QuantizedWeight got = Stepped({0, rate});
  EXPECT_TRUE(at::allclose(got.scales.scale_RC, start_.scales.scale_RC - rate * Wanted().s.sign(),
                           1e-5, 1e-8));
}

// Formats that have zero points.
class BlockApZeroPointTest : public BlockApTest {};

INSTANTIATE_TEST_SUITE_P(Formats, BlockApZeroPointTest,
                         ::testing::Values(std::pair{2, false}, std::pair{3, false},
                                           std::pair{4, false}));

TEST_P(BlockApZeroPointTest, FollowTheirGradients) {
  const QuantizedWeight got = Stepped({0, 1.0});
  const quant::Grid grid = format_.grid();
  const at::Tensor want_NG = (start_.scales.zero_RC - Wanted().z.sign()).clamp(grid.lo, grid.hi);
  EXPECT_FALSE(at::equal(want_NG, start_.scales.zero_RC));  // Some move
  EXPECT_TRUE(at::equal(got.scales.zero_RC, want_NG));
}

}  // namespace
}  // namespace tern::ptq
