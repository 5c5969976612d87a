// Stochastic rounding: only the two neighbours, their mean is the value, and a random number
// belongs to an element, not to a thread.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "quant/grid.h"
#include "quant/ternary.h"
#include "quant/weight_quantizer.h"

namespace tern::quant {
namespace {

at::Tensor Weights(int64_t n, int64_t k, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::empty({n, k}, at::kFloat).normal_(0, 0.02, generator);
}

Noise NoiseOf(uint64_t first) { return {RandomStream(5, "rounding/test"), first}; }

const WeightFormat kFormats[] = {IntFormat(8, 32),
                                 IntFormat(4, 32),
                                 IntFormat(3, 32),
                                 IntFormat(2, 32),
                                 IntFormat(4, 32, false),
                                 Fp8Rows(),
                                 Fp8Blocks(128, 128),
                                 Fp8Tensor(),
                                 Fp8Rows(Element::kE5m2),
                                 Nvfp4(),
                                 Mxfp4()};

std::vector<float> LevelsOf(const Grid& grid) {
  std::vector<float> levels;
  for (int code = 0; code < 256; ++code) {
    const float value = grid.integer ? grid.lo + static_cast<float>(code)
                                     : FloatOfBits(grid, static_cast<uint8_t>(code));
    if (value >= grid.lo && value <= grid.hi) levels.push_back(value);
  }
  std::sort(levels.begin(), levels.end());
  return levels;
}

// Uniform numbers (i + 1/2) / n: of n of them, n p + 1/2 at most fall below p, so the mean is the
// value to 1 / (2 n) of the distance of its neighbours.
TEST(RoundStochasticTest, MeanOfNeighboursIsTheValue) {
  constexpr int kDraws = 1024;
  for (const Grid& grid : {IntegerGrid(4), IntegerGrid(2), kE4m3Grid, kE5m2Grid, kE2m1Grid}) {
    const std::vector<float> levels = LevelsOf(grid);
    RandomStream random(3, "values");
    for (int i = 0; i < 200; ++i) {
      const float wide = 2 * random.NextUniform() - 1;
      const float x = (i % 2 == 0 ? grid.hi : 0.01f * grid.hi) * wide * 1.1f;
      const float inside = std::clamp(x, grid.lo, grid.hi);
      const auto above = std::lower_bound(levels.begin(), levels.end(), inside);
      const float upper = *above, lower = upper == inside ? inside : *(above - 1);
      double sum = 0;
      for (int draw = 0; draw < kDraws; ++draw) {
        const float u = (static_cast<float>(draw) + 0.5f) / kDraws;
        const float rounded = RoundStochastic(grid, x, u);
        EXPECT_TRUE(rounded == lower || rounded == upper) << x << " to " << rounded;
        sum += rounded;
      }
      EXPECT_NEAR(sum / kDraws, inside, (upper - lower) / kDraws + 1e-6 * std::fabs(inside));
    }
  }
}

TEST(RoundStochasticTest, LevelsStay) {
  for (const Grid& grid : {IntegerGrid(8), kE4m3Grid, kE2m1Grid}) {
    for (const float level : LevelsOf(grid)) {
      EXPECT_EQ(RoundStochastic(grid, level, 0.0f), level);
      EXPECT_EQ(RoundStochastic(grid, level, 0x1.fffffep-1f), level);
    }
  }
}

// Every value is the nearest level or one step from it, and over many steps the mean is the weight
// where it is not clipped: within 6 standard deviations of a mean of n, each at most half a step.
TEST(FakeQuantizeStochasticTest, TheExpectationIsTheWeight) {
  constexpr int kSteps = 400;
  for (const WeightFormat& format : kFormats) {
    const at::Tensor w = Weights(4, 128, 1);
    at::Tensor inside;
    const at::Tensor nearest = FakeQuantize(w, format, {}, &inside);
    at::Tensor sum = at::zeros_like(w, at::kDouble), low = nearest.clone(), high = nearest.clone();
    for (int step = 0; step < kSteps; ++step) {
      const at::Tensor q =
          FakeQuantizeStochastic(w, format, NoiseOf(static_cast<uint64_t>(step * w.numel())));
      sum += q;
      low = at::minimum(low, q);
      high = at::maximum(high, q);
    }
    const at::Tensor step_size = high - low;
    const at::Tensor between = (w >= low) & (w <= high);  // Else clipped to the last level
    EXPECT_GT(between.to(at::kFloat).mean().item<float>(), 0.9f) << format.Describe();
    const at::Tensor error = (sum / kSteps - w).abs() * between;
    const at::Tensor bound = 6 * 0.5 * step_size / std::sqrt(double{kSteps}) + 1e-7;
    EXPECT_TRUE((error <= bound).all().item<bool>()) << format.Describe();
    EXPECT_GT((step_size > 0).to(at::kFloat).mean().item<float>(), 0.5f) << format.Describe();
  }
}

TEST(FakeQuantizeStochasticTest, ARandomNumberBelongsToItsElement) {
  const at::Tensor w = Weights(67, 96, 2);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor alone = FakeQuantizeStochastic(w, IntFormat(4, 32), NoiseOf(1000));
  const at::Tensor ternary = FakeTernaryStochastic(w, NoiseOf(1000));
  at::set_num_threads(3);
  EXPECT_TRUE(at::equal(FakeQuantizeStochastic(w, IntFormat(4, 32), NoiseOf(1000)), alone));
  EXPECT_TRUE(at::equal(FakeTernaryStochastic(w, NoiseOf(1000)), ternary));
  at::set_num_threads(threads);
  EXPECT_FALSE(at::equal(FakeQuantizeStochastic(w, IntFormat(4, 32), NoiseOf(1001)), alone));
  // Rows that another process would hold: the same values, their first element's number given.
  const at::Tensor rows = w.narrow(0, 40, 27).contiguous();
  EXPECT_TRUE(at::equal(FakeQuantizeStochastic(rows, IntFormat(4, 32), NoiseOf(1000 + 40 * 96)),
                        alone.narrow(0, 40, 27)));
}

TEST(FakeTernaryStochasticTest, TheExpectationIsTheWeight) {
  constexpr int kSteps = 400;
  const at::Tensor w = Weights(4, 128, 3);
  const float beta = QuantizeTernary(w).beta;
  at::Tensor sum = at::zeros_like(w, at::kDouble);
  for (int step = 0; step < kSteps; ++step) {
    const at::Tensor q = FakeTernaryStochastic(w, NoiseOf(static_cast<uint64_t>(step) * 512));
    EXPECT_TRUE(((q == 0) | (q.abs() == beta)).all().item<bool>());
    sum += q;
  }
  const at::Tensor error = (sum / kSteps - w.clamp(-beta, beta)).abs();
  EXPECT_LT(error.max().item<double>(), 6 * 0.5 * beta / std::sqrt(double{kSteps}) + 1e-7);
}

}  // namespace
}  // namespace tern::quant
