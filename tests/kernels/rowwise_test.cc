// RMSNorm, RoPE and cross-entropy: every instruction set and every cut of the work equals the
// scalar oracle bit for bit; the oracles are compared with fp64, gradients with differences of the
// fp64 forward.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rms_norm/rms_norm_impl.h"
#include "kernels/rope/rope.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

constexpr double kEps = 0x1.0p-24;  // Half an ulp of 1 in fp32: the relative error of one rounding.
const ParallelFor kCuts[] = {SerialFor, UnevenFor, OneByOneFor};

TEST(RmsNormTest, ForwardMatchesFp64AndEveryIsa) {
  for (int64_t d : {1, 5, 8, 15, 16, 17, 40, 256, 1000}) {
    const int64_t m = 9;
    const auto x = RandomFloats(m * d, 1, 3.0f), g = RandomFloats(d, 2);
    std::vector<float> y_ref(x.size()), inv_ref(m);
    RmsNormForwardRef(x.data(), g.data(), 0, m, d, 1e-6f, y_ref.data(), inv_ref.data());
    for (int64_t row = 0; row < m; ++row) {
      double sum = 0;
      for (int64_t i = 0; i < d; ++i) sum += std::pow(static_cast<double>(x[row * d + i]), 2);
      const double inv = 1.0 / std::sqrt(sum / static_cast<double>(d) + 1e-6f);
      // Sum of d/16 + 4 additions and one product each, halved by the root; six more roundings.
      const double tolerance = ((static_cast<double>(d) / 16 + 5) / 2 + 6) * kEps;
      for (int64_t i = 0; i < d; ++i) {
        const double expected = x[row * d + i] * inv * g[i];
        EXPECT_NEAR(y_ref[row * d + i], expected, tolerance * std::fabs(expected)) << d;
      }
    }
    ForEachIsa([&](Isa isa) {
      for (const ParallelFor& parallel : kCuts) {
        std::vector<float> y = x, inv(m);
        RmsNormForward(y.data(), g.data(), m, d, 1e-6f, y.data(), inv.data(), parallel);
        EXPECT_EQ(y, y_ref) << ToString(isa) << " d " << d;
        EXPECT_EQ(inv, inv_ref) << ToString(isa) << " d " << d;
      }
    });
  }
}

// L = sum dy * y in fp64.
double NormLoss(const std::vector<double>& x, const std::vector<double>& g,
                const std::vector<float>& dy, int64_t m, int64_t d) {
  double loss = 0;
  for (int64_t row = 0; row < m; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < d; ++i) sum += x[row * d + i] * x[row * d + i];
    const double inv = 1.0 / std::sqrt(sum / static_cast<double>(d) + 1e-6f);
    for (int64_t i = 0; i < d; ++i) loss += dy[row * d + i] * x[row * d + i] * inv * g[i];
  }
  return loss;
}

TEST(RmsNormTest, BackwardMatchesDifferencesOfFp64) {
  const int64_t m = 3, d = 21;
  const auto x = RandomFloats(m * d, 1), g = RandomFloats(d, 2), dy = RandomFloats(m * d, 3);
  std::vector<float> y(x.size()), inv(m), dx(x.size()), dg(d);
  SetActiveIsa(Isa::kScalar);
  RmsNormForward(x.data(), g.data(), m, d, 1e-6f, y.data(), inv.data(), SerialFor);
  RmsNormBackward(dy.data(), x.data(), g.data(), inv.data(), m, d, dx.data(), dg.data(), SerialFor);
  SetActiveIsa(BestIsa());
  std::vector<double> xd(x.begin(), x.end()), gd(g.begin(), g.end());
  const auto difference = [&](std::vector<double>& v, size_t i) {
    const double keep = v[i], step = 1e-5;
    v[i] = keep + step;
    const double up = NormLoss(xd, gd, dy, m, d);
    v[i] = keep - step;
    const double down = NormLoss(xd, gd, dy, m, d);
    v[i] = keep;
    return (up - down) / (2 * step);
  };
  // Terms of size <= 10 and some 20 roundings each: 10 * 20 * kEps = 1.2e-5.
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(dx[i], difference(xd, i), 1.2e-5);
  for (size_t i = 0; i < g.size(); ++i) EXPECT_NEAR(dg[i], difference(gd, i), 1.2e-5);
}

TEST(RmsNormTest, BackwardIsTheSameForEveryIsaAndCut) {
  for (int64_t d : {1, 7, 16, 33, 256}) {
    for (int64_t m : {0, 1, 63, 64, 65, 200}) {
      const auto x = RandomFloats(m * d, 1), g = RandomFloats(d, 2), dy = RandomFloats(m * d, 3);
      std::vector<float> y(x.size()), inv(m), dx_ref(x.size()), dg_ref(d);
      SetActiveIsa(Isa::kScalar);
      RmsNormForward(x.data(), g.data(), m, d, 1e-5f, y.data(), inv.data(), SerialFor);
      RmsNormBackward(dy.data(), x.data(), g.data(), inv.data(), m, d, dx_ref.data(), dg_ref.data(),
                      SerialFor);
      ForEachIsa([&](Isa isa) {
        for (const ParallelFor& parallel : kCuts) {
          std::vector<float> dx = dy, dg(d, 5.0f);
          RmsNormBackward(dx.data(), x.data(), g.data(), inv.data(), m, d, dx.data(), dg.data(),
                          parallel);
          EXPECT_EQ(dx, dx_ref) << ToString(isa) << " m " << m << " d " << d;
          EXPECT_EQ(dg, dg_ref) << ToString(isa) << " m " << m << " d " << d;
        }
      });
    }
  }
}

struct RopeCase {
  RopeCase(int64_t rows, int64_t heads, int64_t width, int64_t pad)
      : rows(rows),
        heads(heads),
        width(width),
        ldx(heads * width + pad),
        x(RandomFloats(rows * ldx, 4)) {
    cosine.resize(static_cast<size_t>(kContext * width / 2));
    sine.resize(cosine.size());
    RopeTable(kContext, width, 10000.0, {}, cosine.data(), sine.data());
    for (int64_t row = 0; row < rows; ++row)
      positions.push_back(static_cast<int32_t>(row * 37 % kContext));
  }

  std::vector<float> Turned(RopeDirection direction, const ParallelFor& parallel) const {
    std::vector<float> y = x;
    Rope(y.data(), rows, heads, width, ldx, positions.data(), cosine.data(), sine.data(), direction,
         parallel);
    return y;
  }

  static constexpr int64_t kContext = 50;
  int64_t rows, heads, width, ldx;
  std::vector<float> x, cosine, sine;
  std::vector<int32_t> positions;
};

TEST(RopeTest, MatchesComplexRotationInFp64) {
  const RopeCase c(7, 3, 12, 5);
  const auto y = c.Turned(RopeDirection::kForward, SerialFor);
  for (int64_t row = 0; row < c.rows; ++row) {
    for (int64_t head = 0; head < c.heads; ++head) {
      for (int64_t i = 0; i < c.width / 2; ++i) {
        const double angle =
            c.positions[row] * std::pow(10000.0, -2.0 * static_cast<double>(i) / c.width);
        const size_t low = static_cast<size_t>(row * c.ldx + head * c.width + i),
                     high = low + c.width / 2;
        const double a = c.x[low], b = c.x[high];
        // Two rounded products, two rounded table values, one rounded sum, each on values below |a|
        // + |b|.
        const double tolerance = 5 * kEps * (std::fabs(a) + std::fabs(b));
        EXPECT_NEAR(y[low], a * std::cos(angle) - b * std::sin(angle), tolerance);
        EXPECT_NEAR(y[high], b * std::cos(angle) + a * std::sin(angle), tolerance);
      }
    }
    for (int64_t i = c.heads * c.width; i < c.ldx; ++i)
      EXPECT_EQ(y[row * c.ldx + i], c.x[row * c.ldx + i]);
  }
}

TEST(RopeTest, InverseUndoesAndEveryIsaAgrees) {
  for (int64_t width : {2, 8, 16, 32, 34, 64, 128}) {
    RopeCase c(11, 2, width, 0);
    SetActiveIsa(Isa::kScalar);
    const auto forward = c.Turned(RopeDirection::kForward, SerialFor);
    const auto inverse = c.Turned(RopeDirection::kInverse, SerialFor);
    ForEachIsa([&](Isa isa) {
      for (const ParallelFor& parallel : kCuts) {
        EXPECT_EQ(c.Turned(RopeDirection::kForward, parallel), forward)
            << ToString(isa) << " " << width;
        EXPECT_EQ(c.Turned(RopeDirection::kInverse, parallel), inverse)
            << ToString(isa) << " " << width;
      }
    });
    const auto original = c.x;
    c.x = forward;
    const auto back = c.Turned(RopeDirection::kInverse, SerialFor);
    for (size_t i = 0; i < original.size(); ++i) EXPECT_NEAR(back[i], original[i], 20 * kEps * 4);
  }
}

struct LossCase {
  LossCase(int64_t m, int64_t v, float scale, int64_t pad)
      : m(m), v(v), ld(v + pad), z(RandomFloats(m * ld, 6, scale)) {
    for (int64_t row = 0; row < m; ++row) {
      targets.push_back(row % 4 == 3 ? kIgnoreTarget : static_cast<int32_t>(row * 7919 % v));
    }
  }
  int64_t m, v, ld;
  std::vector<float> z;
  std::vector<int32_t> targets;
};

TEST(CrossEntropyTest, MatchesFp64) {
  for (int64_t v : {1, 2, 15, 16, 17, 300, 5003}) {
    const LossCase c(6, v, 5.0f, 3);
    std::vector<float> z = c.z, loss(c.m);
    CrossEntropy(z.data(), c.targets.data(), c.m, c.v, c.ld, 0.25f, loss.data(), SerialFor);
    for (int64_t row = 0; row < c.m; ++row) {
      const float* from = c.z.data() + row * c.ld;
      const float* grad = z.data() + row * c.ld;
      const int32_t target = c.targets[row];
      for (int64_t i = v; i < c.ld; ++i) EXPECT_EQ(grad[i], from[i]);
      if (target == kIgnoreTarget) {
        EXPECT_EQ(loss[row], 0.0f);
        for (int64_t i = 0; i < v; ++i) EXPECT_EQ(grad[i], 0.0f);
        continue;
      }
      double sum = 0;
      for (int64_t i = 0; i < v; ++i) sum += std::exp(static_cast<double>(from[i]));
      // |z| < 10: the difference to the maximum is rounded at 20 kEps, exp adds 2 ulp, the sum v/16
      // + 4 roundings.
      const double tolerance = (20 + 4 + static_cast<double>(v) / 16 + 10) * kEps;
      EXPECT_NEAR(loss[row], std::log(sum) - from[target], tolerance + 20 * kEps);
      for (int64_t i = 0; i < v; ++i) {
        const double expected =
            (std::exp(static_cast<double>(from[i])) / sum - (i == target)) * 0.25;
        EXPECT_NEAR(grad[i], expected, tolerance * 0.25);
      }
    }
  }
}

TEST(CrossEntropyTest, EveryIsaAndCutAgrees) {
  for (int64_t v : {1, 7, 8, 16, 31, 32, 33, 1000}) {
    const LossCase c(9, v, 30.0f, 1);
    std::vector<float> z_ref = c.z, loss_ref(c.m);
    SetActiveIsa(Isa::kScalar);
    CrossEntropy(z_ref.data(), c.targets.data(), c.m, v, c.ld, 0.5f, loss_ref.data(), SerialFor);
    ForEachIsa([&](Isa isa) {
      for (const ParallelFor& parallel : kCuts) {
        std::vector<float> z = c.z, loss(c.m), only(c.m);
        CrossEntropyLoss(z.data(), c.targets.data(), c.m, v, c.ld, only.data(), parallel);
        EXPECT_EQ(z, c.z);
        CrossEntropy(z.data(), c.targets.data(), c.m, v, c.ld, 0.5f, loss.data(), parallel);
        EXPECT_EQ(z, z_ref) << ToString(isa) << " v " << v;
        EXPECT_EQ(loss, loss_ref) << ToString(isa) << " v " << v;
        EXPECT_EQ(only, loss_ref) << ToString(isa) << " v " << v;
      }
    });
  }
}

TEST(CrossEntropyTest, ExtremesStayFiniteAndNanShows) {
  ForEachIsa([&](Isa) {
    std::vector<float> z(40, -3e38f), loss(1);
    z[3] = 3e38f;
    const int32_t target = 3;
    CrossEntropy(z.data(), &target, 1, 40, 40, 1.0f, loss.data(), SerialFor);
    EXPECT_EQ(loss[0], 0.0f);
    EXPECT_EQ(z[3], 0.0f);
    for (int64_t bad : {0, 20, 39}) {
      std::vector<float> with_nan(40, 1.0f);
      with_nan[static_cast<size_t>(bad)] = std::nanf("");
      CrossEntropyLoss(with_nan.data(), &target, 1, 40, 40, loss.data(), SerialFor);
      EXPECT_FALSE(std::isfinite(loss[0])) << bad;
    }
  });
}

}  // namespace
}  // namespace tern::kernels
