// The choice of the next token: greedy ties, exact supports of top-k and top-p, frequencies, and
// logits that are no numbers.
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "base/error.h"

namespace tern::testing {
namespace {

using engine::Sampler;
using engine::SamplingOptions;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::map<int32_t, int> Draw(const SamplingOptions& options, const std::vector<float>& logits,
                            int count) {
  Sampler sampler(options);
  std::map<int32_t, int> found;
  for (int i = 0; i < count; ++i) ++found[sampler.Next(logits)];
  return found;
}

std::set<int32_t> Support(const SamplingOptions& options, const std::vector<float>& logits) {
  std::set<int32_t> ids;
  for (const auto& [id, count] : Draw(options, logits, 4000)) ids.insert(id);
  return ids;
}

SamplingOptions Hot(int64_t top_k, double top_p) { return {1.0, top_k, top_p, 7}; }

// Logits whose probabilities at temperature 1 are 0.4, 0.3, 0.2, 0.1, in the order 2, 0, 3, 1.
const std::vector<float> kFour = {std::log(0.3f), std::log(0.1f), std::log(0.4f), std::log(0.2f)};

TEST(SamplerTest, GreedyTakesTheHighestAndTheLowestIdOfEquals) {
  Sampler greedy({});
  EXPECT_EQ(greedy.Next(std::vector<float>{1, 3, 2}), 1);
  EXPECT_EQ(greedy.Next(std::vector<float>{5, 5, 5}), 0);
  EXPECT_EQ(greedy.Next(std::vector<float>{1, 5, 0, 5}), 1);
  EXPECT_EQ(greedy.Next(std::vector<float>{-kInf, -7}), 1);
  EXPECT_EQ(greedy.Next(std::vector<float>{42}), 0);
}

TEST(SamplerTest, TopKKeepsTheMostProbable) {
  EXPECT_EQ(Support(Hot(1, 1), kFour), (std::set<int32_t>{2}));
  EXPECT_EQ(Support(Hot(2, 1), kFour), (std::set<int32_t>{2, 0}));
  EXPECT_EQ(Support(Hot(3, 1), kFour), (std::set<int32_t>{2, 0, 3}));
  for (const int64_t all : {0, 4, 5, 1'000'000})
    EXPECT_EQ(Support(Hot(all, 1), kFour), (std::set<int32_t>{0, 1, 2, 3})) << all;
  // Of equals, the lowest ids.
  EXPECT_EQ(Support(Hot(2, 1), {1, 1, 1, 1}), (std::set<int32_t>{0, 1}));
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachIt) {
  EXPECT_EQ(Support(Hot(0, 0.0), kFour), (std::set<int32_t>{2}));  // One at least
  EXPECT_EQ(Support(Hot(0, 0.39), kFour), (std::set<int32_t>{2}));
  EXPECT_EQ(Support(Hot(0, 0.41), kFour), (std::set<int32_t>{2, 0}));
  EXPECT_EQ(Support(Hot(0, 0.69), kFour), (std::set<int32_t>{2, 0}));
  EXPECT_EQ(Support(Hot(0, 0.71), kFour), (std::set<int32_t>{2, 0, 3}));
  EXPECT_EQ(Support(Hot(0, 0.91), kFour), (std::set<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(Support(Hot(0, 1.0), kFour), (std::set<int32_t>{0, 1, 2, 3}));
  // After top-k: of the two kept, the first has 4/7 = 0.571.
  EXPECT_EQ(Support(Hot(2, 0.57), kFour), (std::set<int32_t>{2}));
  EXPECT_EQ(Support(Hot(2, 0.58), kFour), (std::set<int32_t>{2, 0}));
}

TEST(SamplerTest, ForbiddenTokensAreNeverDrawn) {
  EXPECT_EQ(Support(Hot(0, 1), {-kInf, 1, -kInf, 1}), (std::set<int32_t>{1, 3}));
}

// Chi-square of 4 cells with 3 degrees of freedom: 16.27 is passed by 1 of 1,000 seeds, so a fixed
// seed that stays below says that the frequencies are right.
TEST(SamplerTest, FrequenciesAreTheProbabilities) {
  constexpr int kDraws = 20000;
  const auto chi_square = [](const std::map<int32_t, int>& found,
                             const std::vector<double>& probabilities) {
    double sum = 0;
    for (size_t id = 0; id < probabilities.size(); ++id) {
      const double want = kDraws * probabilities[id];
      const auto cell = found.find(static_cast<int32_t>(id));
      const double count = cell == found.end() ? 0 : cell->second;
      sum += (count - want) * (count - want) / want;
    }
    return sum;
  };
  EXPECT_LT(chi_square(Draw(Hot(0, 1), kFour, kDraws), {0.3, 0.1, 0.4, 0.2}), 16.27);
  // Temperature 0.5 squares the probabilities: 9, 1, 16, 4 of 30.
  SamplingOptions cold = Hot(0, 1);
  cold.temperature = 0.5;
  EXPECT_LT(chi_square(Draw(cold, kFour, kDraws), {9 / 30.0, 1 / 30.0, 16 / 30.0, 4 / 30.0}),
            16.27);
  // The same draws against a wrong law: the test can fail.
  EXPECT_GT(chi_square(Draw(Hot(0, 1), kFour, kDraws), {0.25, 0.25, 0.25, 0.25}), 16.27);
}

TEST(SamplerTest, LogitsFarApartDoNotOverflow) {
  EXPECT_EQ(Support(Hot(0, 1), {3e38f, -3e38f, 0}), (std::set<int32_t>{0}));
  SamplingOptions cold = Hot(0, 1);
  cold.temperature = 1e-300;
  EXPECT_EQ(Support(cold, {1, 2, 3}), (std::set<int32_t>{2}));
  SamplingOptions hot = Hot(0, 1);
  hot.temperature = 1e300;
  EXPECT_EQ(Support(hot, {3e38f, -3e38f, 0}), (std::set<int32_t>{0, 1, 2}));
}

TEST(SamplerTest, TheSeedDecides) {
  const auto sequence = [](uint64_t seed) {
    Sampler sampler({1.0, 0, 1.0, seed});
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler.Next(kFour));
    return ids;
  };
  EXPECT_EQ(sequence(1), sequence(1));
  EXPECT_NE(sequence(1), sequence(2));
}

TEST(SamplerTest, LogitsThatAreNoNumbersAreRefused) {
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({temperature, 0, 1.0, 1});
    EXPECT_THROW(sampler.Next(std::vector<float>{1, kNan, 2}), NumericError);
    EXPECT_THROW(sampler.Next(std::vector<float>{kNan, kNan}), NumericError);
    EXPECT_THROW(sampler.Next(std::vector<float>{1, kInf}), NumericError);
    EXPECT_THROW(sampler.Next(std::vector<float>{-kInf, -kInf}), NumericError);
    EXPECT_THROW(sampler.Next({}), NumericError);
  }
}

TEST(SamplerTest, OptionsOutOfRangeAreRefused) {
  const auto refused = [](double temperature, int64_t top_k, double top_p) {
    EXPECT_THROW(Sampler({temperature, top_k, top_p, 1}), UsageError)
        << temperature << " " << top_k << " " << top_p;
  };
  refused(-0.1, 0, 1);
  refused(double{kNan}, 0, 1);
  refused(double{kInf}, 0, 1);
  refused(1, -1, 1);
  refused(1, 0, -0.1);
  refused(1, 0, 1.1);
  refused(1, 0, double{kNan});
}

}  // namespace
}  // namespace tern::testing
