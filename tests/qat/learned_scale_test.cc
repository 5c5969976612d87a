// Quantizers with learned scales against ParetoQ's formulas, element by element.
#include "qat/learned_scale.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

namespace tern::qat {
namespace {

struct Case {
  LearnedQuantizer quantizer;
  double low, high;              // Of u where it is clipped
  double low_level, high_level;  // What the scale's gradient has there
  double qp;
};

constexpr double kClip = 0.99;
const Case kCases[] = {{{LearnedKind::kLsq, 3}, -4, 3, -4, 3, 3},
                       {{LearnedKind::kLsq, 4}, -8, 7, -8, 7, 7},
                       {{LearnedKind::kLsq, 8}, -128, 127, -128, 127, 127},
                       {{LearnedKind::kSeq2, 2}, -kClip, kClip, -0.75, 0.75, 1},
                       {{LearnedKind::kSeqTernary, 2}, -kClip, kClip, -1, 1, 1},
                       {{LearnedKind::kSign, 1}, -1, 1, -1, 1, 1}};

double Level(const LearnedQuantizer& q, double u) {
  const auto clip = [](double x, double low, double high) {
    return std::min(std::max(x, low), high);
  };
  switch (q.kind) {
    case LearnedKind::kLsq:
      return clip(std::nearbyint(u), -std::exp2(q.bits - 1), std::exp2(q.bits - 1) - 1);
    case LearnedKind::kSeq2:
      return (std::nearbyint(clip(u, -kClip, kClip) * 2 - 0.5) + 0.5) / 2;
    case LearnedKind::kSeqTernary:
      return std::nearbyint(clip(u, -kClip, kClip) * 1.5) / 1.5;
    case LearnedKind::kSign:
      return u > 0 ? 1 : (u < 0 ? -1 : 0);
  }
  return NAN;
}

// Scales count as their bf16, where a format of integers has the levels.
double Used(const LearnedQuantizer& q, const at::Tensor& a) {
  return (q.kind != LearnedKind::kSeqTernary ? a.to(at::kBFloat16) : a).item<double>();
}

class LearnedScaleTest : public ::testing::TestWithParam<Case> {
 protected:
  static void CheckFormulas(const Case& c, int64_t groups);
};

void LearnedScaleTest::CheckFormulas(const Case& c, int64_t groups) {
  auto generator = at::detail::createCPUGenerator(7);
  at::Tensor w = at::empty({3, 40}, at::kDouble).normal_(0, 0.1, generator);
  const at::Tensor dy = at::empty({3, 40}, at::kDouble).normal_(0, 1, generator);
  // A scale of a third of the initial one: every matrix has weights on both sides of both limits.
  at::Tensor a = (InitialScale(c.quantizer, w, groups) / 3).set_requires_grad(true);
  ASSERT_EQ(a.sizes(), at::IntArrayRef({3, groups}));
  w.set_requires_grad(true);
  const at::Tensor y = QuantizeLearned(c.quantizer, w, a);
  torch::autograd::backward({y}, {dy});
  const double g = 1 / std::sqrt(3.0 * 40 * c.qp);
  int64_t clipped = 0;
  for (int64_t n = 0; n < 3; ++n) {
    std::vector<double> da(static_cast<size_t>(groups), 0);
    for (int64_t k = 0; k < 40; ++k) {
      const int64_t of = k / (40 / groups);
      const double scale = Used(c.quantizer, a[n][of]), u = w[n][k].item<double>() / scale;
      const double level = Level(c.quantizer, u), grad = dy[n][k].item<double>();
      EXPECT_NEAR(y[n][k].item<double>(), level * scale, 1e-15);
      const bool below = u<c.low, above = u> c.high;
      clipped += below || above;
      EXPECT_EQ(w.grad()[n][k].item<double>(), below || above ? 0.0 : grad);
      const double slope = below ? c.low_level : above ? c.high_level : level - u;
      da[static_cast<size_t>(of)] +=
          (c.quantizer.kind == LearnedKind::kSign ? level : slope) * grad * g;
    }
    for (int64_t of = 0; of < groups; ++of)
      EXPECT_NEAR(a.grad()[n][of].item<double>(), da[static_cast<size_t>(of)], 1e-12);
  }
  EXPECT_GT(clipped, 3);
  EXPECT_LT(clipped, 117);
}

// A scale a row, and one for each 8 of its weights.
TEST_P(LearnedScaleTest, ValuesAndGradientsAreTheFormulas) {
  for (const int64_t groups : {1, 5}) CheckFormulas(GetParam(), groups);
}
TEST_P(LearnedScaleTest, StartsAtItsInitialScale) {
  const Case& c = GetParam();
  const at::Tensor w =
      at::tensor({0.5, -1.0, 0.25, 0.0, 2.0, 1.0, -1.0, 0.0}, at::kDouble).view({2, 4});
  const at::Tensor a = InitialScale(c.quantizer, w, 1), halves = InitialScale(c.quantizer, w, 2);
  for (int64_t n = 0; n < 2; ++n) {
    const double mean = n == 0 ? 1.75 / 4 : 1.0, largest = n == 0 ? 1.0 : 2.0;
    const double want = c.quantizer.kind == LearnedKind::kSign ? mean : largest / c.qp;
    EXPECT_DOUBLE_EQ(a[n][0].item<double>(), want);
    for (int64_t half = 0; half < 2; ++half) {
      const double first = std::abs(w[n][2 * half].item<double>()),
                   second = std::abs(w[n][2 * half + 1].item<double>());
      const double of = c.quantizer.kind == LearnedKind::kSign ? (first + second) / 2
                                                               : std::max(first, second) / c.qp;
      EXPECT_DOUBLE_EQ(halves[n][half].item<double>(), of);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, LearnedScaleTest, ::testing::ValuesIn(kCases));

}  // namespace
}  // namespace tern::qat
