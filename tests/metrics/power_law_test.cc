// Power laws fitted to learning curves.
#include "metrics/power_law.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tern {
namespace {

TEST(PowerLawTest, PointsOfALawGiveIt) {
  std::vector<std::pair<int64_t, double>> points;
  for (const int64_t tokens : {1000, 3000, 10'000, 50'000, 200'000})
    points.emplace_back(tokens, 30 * std::pow(static_cast<double>(tokens), -0.4));
  const auto law = FitPowerLaw(points);
  ASSERT_TRUE(law);
  EXPECT_NEAR(law->exponent, 0.4, 1e-12);
  EXPECT_NEAR(law->coefficient, 30, 1e-9);
  EXPECT_NEAR(law->r_squared, 1, 1e-12);
  EXPECT_EQ(law->points, 5);
  EXPECT_NEAR(law->At(5e6), 30 * std::pow(5e6, -0.4), 1e-12);
  EXPECT_NEAR(law->TokensTo(law->At(5e6)), 5e6, 1e-3);
}

// In logs: (0, 3), (1, 1), (2, 2), (3, 0), so means 1.5 and 1.5, xx = 5, xy = -4, yy = 5.
TEST(PowerLawTest, ScatterIsLeastSquaresInLogs) {
  const double e = std::exp(1.0);
  std::vector<std::pair<int64_t, double>> points;
  const double ys[] = {3, 1, 2, 0};
  for (int i = 0; i < 4; ++i)
    points.emplace_back(static_cast<int64_t>(std::llround(1e12 * std::pow(e, i))), std::exp(ys[i]));
  const auto law = FitPowerLaw(points);
  ASSERT_TRUE(law);
  EXPECT_NEAR(law->exponent, 0.8, 1e-9);
  EXPECT_NEAR(law->r_squared, 0.64, 1e-9);
}

TEST(PowerLawTest, WhatIsNoFallingCurveHasNone) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(FitPowerLaw({}));
  EXPECT_FALSE(FitPowerLaw({{1, 3.0}, {2, 2.0}, {4, 1.0}}));  // Three
  EXPECT_FALSE(FitPowerLaw({{1, 3.0}, {2, 2.0}, {4, 1.0}, {8, nan}}));
  EXPECT_FALSE(FitPowerLaw({{1, 3.0}, {2, 2.0}, {4, 1.0}, {8, -0.5}}));
  EXPECT_FALSE(FitPowerLaw({{0, 4.0}, {1, 3.0}, {2, 2.0}, {4, 1.0}}));
  EXPECT_FALSE(FitPowerLaw({{1, 1.0}, {2, 2.0}, {4, 3.0}, {8, 4.0}}));  // Rises
  EXPECT_FALSE(FitPowerLaw({{1, 1.0}, {2, 1.0}, {4, 1.0}, {8, 1.0}}));  // Level
  EXPECT_FALSE(FitPowerLaw({{5, 4.0}, {5, 3.0}, {5, 2.0}, {5, 1.0}}));  // At one t
}

}  // namespace
}  // namespace tern
