// The SVG of curves: points where they belong, axes for any range.
#include "metrics/line_plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>

#include "base/error.h"

namespace tern {
namespace {

// The numbers of every "M" and "L" in the d attribute of the nth path.
std::vector<std::pair<double, double>> PointsOf(const std::string& svg, size_t path) {
  const std::regex d("d=\"([^\"]*)\""), point("[ML]([-0-9.]+),([-0-9.]+)");
  auto found = std::sregex_iterator(svg.begin(), svg.end(), d);
  std::advance(found, path);
  const std::string text = (*found)[1];
  std::vector<std::pair<double, double>> points;
  for (auto p = std::sregex_iterator(text.begin(), text.end(), point); p != std::sregex_iterator();
       ++p)
    points.emplace_back(std::stod((*p)[1]), std::stod((*p)[2]));
  return points;
}

size_t Count(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(LinePlotTest, PointsLieInProportion) {
  const std::string svg = LinePlot(
      {{"a", {{0, 4.0}, {50, 3.0}, {100, 2.0}}}, {"b", {{100, 3.0}}, true}}, "steps", "loss");
  const auto points = PointsOf(svg, 0);
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[1].first - points[0].first, points[2].first - points[1].first, 0.11);
  EXPECT_NEAR(points[1].second - points[0].second, points[2].second - points[1].second, 0.11);
  EXPECT_GT(points[2].first, points[0].first);
  EXPECT_GT(points[2].second, points[0].second);  // SVG's y grows downwards, the loss falls
  EXPECT_EQ(Count(svg, "<circle"), 1u);
  EXPECT_NE(svg.find(">loss</text>"), std::string::npos);
}

TEST(LinePlotTest, AValueThatIsNotFiniteLeavesAGap) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string svg = LinePlot({{"a", {{0, 1.0}, {1, nan}, {2, 2.0}, {3, 1.5}}}}, "x", "y");
  EXPECT_EQ(PointsOf(svg, 0).size(), 3u);
  EXPECT_EQ(Count(svg, "M"), 2u);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(LinePlotTest, NamesAreEscaped) {
  const std::string svg = LinePlot({{"a<b & c", {{0, 1.0}}}}, "x", "y");
  EXPECT_NE(svg.find("a&lt;b &amp; c"), std::string::npos);
}

// Equal values, tiny ones and huge ones all give axes with a few lines.
TEST(LinePlotTest, AxesFitAnyRange) {
  for (const double scale : {1e-9, 1e-3, 1.0, 7.0, 1e6}) {
    for (const double spread : {0.0, 1e-3, 1.0}) {
      const std::string svg = LinePlot({{"a", {{1, scale}, {9, scale * (1 + spread)}}}}, "x", "y");
      EXPECT_GE(Count(svg, "<line"), 2u) << scale << " " << spread;
      EXPECT_LE(Count(svg, "<line"), 12u) << scale << " " << spread;
      for (const auto& [x, y] : PointsOf(svg, 0)) {
        EXPECT_TRUE(y >= 0 && y <= 400 && x >= 0 && x <= 760) << scale << " " << spread;
      }
    }
  }
}

TEST(LinePlotTest, NothingToDrawIsAnError) {
  EXPECT_THROW(LinePlot({}, "x", "y"), InputError);
  EXPECT_THROW(LinePlot({{"a", {}}}, "x", "y"), InputError);
}

}  // namespace
}  // namespace tern
