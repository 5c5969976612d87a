// TernaryGemm against the plain sum over unpacked weights (not against our own packing), for exact
// equality: every instruction set, both ways (few and many tokens), sizes around every tile edge,
// extreme activations, any cut of the work.
#include "kernels/ternary_gemm/ternary_gemm.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

struct Problem {
  Problem(int64_t m, int64_t n, int64_t k, uint32_t seed, int64_t pad = 0)
      : m(m),
        n(n),
        k(k),
        ldx(T2PaddedK(k) + pad),
        ldy(n + pad),
        weights(RandomTernary(n * k, seed)) {
    std::mt19937 random(seed + 1);
    packed = PackMatrix(weights, n, k);
    x.assign(static_cast<size_t>(m * ldx), 0);
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t i = 0; i < k; ++i)
        x[static_cast<size_t>(row * ldx + i)] = static_cast<int8_t>(random());
      scales.push_back(0.001f * static_cast<float>(row + 1));
    }
    Sum();
  }

  void Sum() {
    sums.clear();
    for (int64_t row = 0; row < m; ++row) {
      sums.push_back(std::accumulate(x.begin() + row * ldx, x.begin() + row * ldx + k, 0));
    }
  }

  TernaryGemmArgs Args(std::vector<float>& y) const {
    y.assign(static_cast<size_t>(m * ldy), -7.0f);
    return {packed.data(), x.data(), sums.data(), scales.data(), y.data(), m, n, k, ldx, ldy};
  }

  // Straight from the definition; columns beyond n keep the -7 of Args.
  std::vector<float> Expected() const {
    std::vector<float> y(static_cast<size_t>(m * ldy), -7.0f);
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t col = 0; col < n; ++col) {
        int32_t acc = 0;
        for (int64_t i = 0; i < k; ++i) {
          acc += weights[static_cast<size_t>(col * k + i)] * x[static_cast<size_t>(row * ldx + i)];
        }
        y[static_cast<size_t>(row * ldy + col)] =
            static_cast<float>(acc) * scales[static_cast<size_t>(row)];
      }
    }
    return y;
  }

  int64_t m, n, k, ldx, ldy;
  std::vector<int8_t> weights, x;
  std::vector<uint8_t> packed;
  std::vector<int32_t> sums;
  std::vector<float> scales;
};

void ExpectExact(const Problem& problem) {
  const std::vector<float> expected = problem.Expected();
  std::vector<float> y;
  TernaryGemmRef(problem.Args(y));
  ASSERT_EQ(y, expected) << "oracle, m " << problem.m << " n " << problem.n << " k " << problem.k;
  ForEachIsa([&](Isa isa) {
    for (const ParallelFor& parallel :
         {ParallelFor(SerialFor), ParallelFor(UnevenFor), ParallelFor(OneByOneFor)}) {
      TernaryGemm(problem.Args(y), parallel);
      ASSERT_EQ(y, expected) << ToString(isa) << ", m " << problem.m << " n " << problem.n << " k "
                             << problem.k;
    }
  });
}

TEST(TernaryGemmTest, EverySmallCountOfTokens) {
  for (int64_t m = 1; m <= 27; ++m) ExpectExact(Problem(m, 37, 200, static_cast<uint32_t>(m)));
}

TEST(TernaryGemmTest, EverySmallCountOfRows) {
  for (int64_t n = 1; n <= 67; ++n) {
    ExpectExact(Problem(1, n, 128, static_cast<uint32_t>(n)));
    ExpectExact(Problem(13, n, 128, static_cast<uint32_t>(n)));
  }
}

TEST(TernaryGemmTest, EveryKindOfWidth) {
  // One block, odd and even counts of blocks, one over and one under, past both widening limits of
  // AVX2 (256 and 1024).
  for (int64_t k :
       {1, 2, 127, 128, 129, 255, 256, 257, 384, 640, 768, 1023, 1024, 1025, 1152, 2560, 4097}) {
    for (int64_t m : {1, 2, 3, 4, 9, 12})
      ExpectExact(Problem(m, 18, k, static_cast<uint32_t>(k + m)));
  }
}

TEST(TernaryGemmTest, LeadingDimensionsBeyondTheWidth) {
  ExpectExact(Problem(5, 33, 300, 3, /*pad=*/19));
  ExpectExact(Problem(29, 33, 300, 3, /*pad=*/19));
}

TEST(TernaryGemmTest, ManyTokensInSeveralChunks) {
  ExpectExact(Problem(401, 70, 256, 5));
  ExpectExact(Problem(250, 300, 2048, 6));  // More rows than one panel buffer holds.
}

TEST(TernaryGemmTest, NothingToDo) {
  std::vector<float> y;
  ForEachIsa([&](Isa) {
    TernaryGemm(Problem(0, 5, 128, 1).Args(y), SerialFor);
    TernaryGemm(Problem(5, 0, 128, 1).Args(y), SerialFor);
    TernaryGemm(Problem(3, 4, 0, 1).Args(y), SerialFor);
    EXPECT_EQ(y, std::vector<float>(12, 0.0f));  // An empty sum.
  });
}

// The largest int16 and int32 partial sums: all codes 2 with all activations at either end.
TEST(TernaryGemmTest, ExtremeActivations) {
  for (int8_t value : {int8_t{-128}, int8_t{127}}) {
    for (int8_t weight : {int8_t{1}, int8_t{-1}, int8_t{0}}) {
      for (int64_t m : {1, 4, 17}) {
        Problem problem(m, 35, 6912, 9);
        std::fill(problem.weights.begin(), problem.weights.end(), weight);
        problem.packed = PackMatrix(problem.weights, problem.n, problem.k);
        for (int64_t row = 0; row < m; ++row) {
          std::fill_n(problem.x.begin() + row * problem.ldx, problem.k, value);
        }
        problem.Sum();
        ExpectExact(problem);
      }
    }
  }
}

TEST(TernaryGemmFuzzTest, RandomShapes) {
  std::mt19937 random(20240227);
  for (int i = 0; i < 60; ++i) {
    const int64_t m = 1 + random() % 60, n = 1 + random() % 100, k = 1 + random() % 700;
    ExpectExact(Problem(m, n, k, random(), random() % 3 * 5));
  }
}

}  // namespace
}  // namespace tern::kernels
