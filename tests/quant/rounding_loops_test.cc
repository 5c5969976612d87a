// The loops of post-training quantization: every version gives the oracle's bits, the oracle is the
// definition, and so the scales that a search finds do not depend on the processor.
#include "quant/rounding_loops.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "kernels/common/isa.h"
#include "quant/rounding_loops_impl.h"
#include "quant/weight_quantizer.h"

namespace tern::quant {
namespace {

// Puts the instruction set back that was active.
class WithIsa {
 public:
  explicit WithIsa(kernels::Isa isa) : before_(kernels::ActiveIsa()) { kernels::SetActiveIsa(isa); }
  ~WithIsa() { kernels::SetActiveIsa(before_); }

 private:
  kernels::Isa before_;
};

std::vector<float> Random(int64_t count, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const at::Tensor x = (at::randn({count}, generator) * 0.02).contiguous();
  return {x.const_data_ptr<float>(), x.const_data_ptr<float>() + count};
}

struct Case {
  Grid grid;
  float s, zero;
};
const Case kCases[] = {{IntegerGrid(2), 0.013f, 0},  {IntegerGrid(3), -0.011f, 0},
                       {IntegerGrid(4), 0.004f, -3}, {IntegerGrid(8), 0.0003f, 0},
                       {kE2m1Grid, 0.007f, 0},       {kE4m3Grid, 0.0001f, 0},
                       {kE5m2Grid, 1e-6f, 0}};

TEST(RoundingLoopsTest, ErrorsAreBitEqualOnEveryInstructionSet) {
  constexpr int64_t kRows = 3, kStride = 140;
  const std::vector<float> w = Random(kRows * kStride, 1), weights = Random(kStride, 2);
  std::vector<float> importance;
  for (const float x : weights) importance.push_back(x * x);
  for (const Case& c : kCases) {
    for (const int64_t columns : {0, 1, 7, 8, 9, 16, 63, 64, 128, 140}) {
      for (const bool weighted : {false, true}) {
        const WeightBlock block{w.data(), kRows, columns, kStride,
                                weighted ? importance.data() : nullptr};
        const double want = RoundingErrorRef(block, c.grid, c.s, c.zero);
        for (const kernels::Isa isa : kernels::AvailableIsas()) {
          const WithIsa with(isa);
          const double found = RoundingError(block, c.grid, c.s, c.zero);
          EXPECT_EQ(std::bit_cast<uint64_t>(found), std::bit_cast<uint64_t>(want))
              << kernels::ToString(isa) << ", " << columns << " columns, " << c.grid.hi;
        }
      }
    }
  }
}

// Against fp64 over the rounded values. fp32 loses at most 2^-24 in each of the operations of an
// element (difference, square, weight) and of its up to 18 additions: 2^-19 relative, all terms
// being positive.
TEST(RoundingLoopsTest, ErrorIsTheDefinition) {
  constexpr int64_t kColumns = 140;
  const std::vector<float> w = Random(kColumns, 3), importance(kColumns, 0.25f);
  for (const Case& c : kCases) {
    double want = 0;
    for (const float x : w) {
      const float value = (RoundToGrid(c.grid, x / c.s + c.zero) - c.zero) * c.s;
      const double difference = double{value} - double{x};
      want += difference * difference * 0.25;
    }
    const double found =
        RoundingErrorRef({w.data(), 1, kColumns, kColumns, importance.data()}, c.grid, c.s, c.zero);
    EXPECT_NEAR(found, want, std::ldexp(want, -19)) << c.grid.hi;
  }
}

TEST(RoundingLoopsTest, SubtractScaledIsBitEqualOnEveryInstructionSet) {
  for (const int64_t n : {0, 1, 7, 8, 9, 31, 64, 127}) {
    const std::vector<float> x = Random(n + 1, 4), y = Random(n + 1, 5);
    std::vector<float> want = y;
    for (int64_t i = 0; i < n; ++i) {
      const float product = 1.7f * x[static_cast<size_t>(i)];
      want[static_cast<size_t>(i)] -= product;
    }
    for (const kernels::Isa isa : kernels::AvailableIsas()) {
      const WithIsa with(isa);
      std::vector<float> found = y;
      SubtractScaled(x.data(), 1.7f, n, found.data());
      EXPECT_EQ(found, want) << kernels::ToString(isa) << ", " << n;
    }
  }
}

TEST(RoundingLoopsTest, SearchFindsTheSameScalesOnEveryInstructionSet) {
  auto generator = at::detail::createCPUGenerator(6);
  const at::Tensor w_NK = at::randn({24, 192}, generator) * 0.02;
  const at::Tensor importance_K = at::rand({192}, generator);
  RangeSearch range;
  range.method = RangeSearch::Method::kMse;
  for (const WeightFormat& format :
       {IntFormat(3, 64), IntFormat(4, 64, false), IntFormat(8, 0), Fp8Rows(), Nvfp4(), Mxfp4()}) {
    BlockScales want;
    {
      const WithIsa with(kernels::Isa::kScalar);
      want = FindScales(w_NK, format, range, importance_K);
    }
    for (const kernels::Isa isa : kernels::AvailableIsas()) {
      const WithIsa with(isa);
      const BlockScales found = FindScales(w_NK, format, range, importance_K);
      EXPECT_TRUE(at::equal(found.scale_RC, want.scale_RC))
          << format.Describe() << " on " << kernels::ToString(isa);
      if (!format.symmetric) {
        EXPECT_TRUE(at::equal(found.zero_RC, want.zero_RC)) << kernels::ToString(isa);
      }
    }
  }
}

// Ranges that the search passes over by their clipped ends alone would not have been taken.
TEST(RoundingLoopsTest, SearchTakesTheBestOfAllRanges) {
  constexpr int64_t kGroup = 32, kGroups = 64;
  std::vector<float> w = Random(kGroup * kGroups, 8), importance = Random(kGroup, 9);
  for (float& x : importance) x *= x;
  for (int64_t g = 0; g < kGroups; g += 3) w[static_cast<size_t>(g * kGroup + g % kGroup)] *= 6;
  for (const bool weighted : {false, true}) {
    for (const int bits : {2, 3, 4, 8}) {
      const WeightFormat format = IntFormat(bits, kGroup);
      const Grid grid = format.grid();
      RangeSearch range;
      range.method = RangeSearch::Method::kMse;
      range.signed_scale = true;
      for (int64_t g = 0; g < kGroups; ++g) {
        const WeightBlock block{w.data() + g * kGroup, 1, kGroup, kGroup,
                                weighted ? importance.data() : nullptr};
        float amax = 0;
        for (int64_t i = 0; i < kGroup; ++i) amax = std::max(amax, std::fabs(block.w[i]));
        float best = RoundScale(format.scale_dtype, amax / ((grid.hi - grid.lo) / 2));
        double least = RoundingError(block, grid, best, 0);
        for (int step = 0; step < range.steps; ++step) {
          const float part =
              1 - (1 - range.least) * static_cast<float>(step) / static_cast<float>(range.steps);
          const float size = RoundScale(format.scale_dtype, amax * part / grid.hi);
          for (const float s : {size, -size}) {
            const double error = RoundingError(block, grid, s, 0);
            if (error < least) {
              least = error;
              best = s;
            }
          }
        }
        EXPECT_EQ(FindSegmentScale(block.w, kGroup, format, range, block.importance, 1).scale, best)
            << bits << " bits, group " << g;
      }
    }
  }
}

}  // namespace
}  // namespace tern::quant
