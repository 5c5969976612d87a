// The choice of the next token: greedy ties, exact supports of top-k and top-p, frequencies, and
// logits that are no numbers.
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/random.h"

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

TEST(SamplerTest, MinPKeepsAShareOfTheHighest) {
  const auto kept = [](double min_p, int64_t top_k = 0) {
    SamplingOptions options = Hot(top_k, 1);
    options.min_p = min_p;
    return Support(options, kFour);
  };
  // Shares of the highest: 0.75, 0.25, 1, 0.5.
  EXPECT_EQ(kept(0), (std::set<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(kept(0.24), (std::set<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(kept(0.26), (std::set<int32_t>{0, 2, 3}));
  EXPECT_EQ(kept(0.51), (std::set<int32_t>{0, 2}));
  EXPECT_EQ(kept(0.76), (std::set<int32_t>{2}));
  EXPECT_EQ(kept(1), (std::set<int32_t>{2}));
  EXPECT_EQ(kept(0.24, 2), (std::set<int32_t>{0, 2}));  // After top-k
}

// Goal: the temperature comes last. At temperature 2 the shares are roots: 0.87, 0.5, 1, 0.71, of
// a sum of 3.07; top-p and min-p must not see them.
TEST(SamplerTest, TemperatureDoesNotChangeWhichTokensAreKept) {
  SamplingOptions options = Hot(0, 0.41);
  for (const double temperature : {0.1, 1.0, 2.0}) {
    options.temperature = temperature;
    EXPECT_EQ(Support(options, kFour), (std::set<int32_t>{2, 0})) << temperature;
  }
  options = Hot(0, 1);
  options.temperature = 2;
  options.min_p = 0.6;
  EXPECT_EQ(Support(options, kFour), (std::set<int32_t>{2, 0}));
}

// Goal: the heap of a large vocabulary gives what a full sort would give.
TEST(SamplerTest, ALargeVocabularyIsCutAsBySorting) {
  RandomStream random(9, "logits");
  std::vector<float> logits(700);
  for (float& logit : logits) logit = 20 * random.NextNormal();
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  for (const int64_t k : {1, 2, 7, 40}) {
    SamplingOptions options = Hot(k, 1);
    options.temperature = 1e9;  // Flat, so that all that are kept are seen
    EXPECT_EQ(Support(options, logits), (std::set<int32_t>(order.begin(), order.begin() + k)));
  }
  double all = 0, upto = 0;
  for (const float logit : logits) all += std::exp(double{logit});
  for (int i = 0; i < 12; ++i)
    upto += std::exp(double{logits[static_cast<size_t>(order[static_cast<size_t>(i)])]});
  SamplingOptions options = Hot(0, upto / all * (1 - 1e-9));
  options.temperature = 1e9;
  EXPECT_EQ(Support(options, logits), (std::set<int32_t>(order.begin(), order.begin() + 12)));
}

TEST(SamplerTest, ThePenaltyDividesPositiveLogitsAndMultipliesOthers) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  Sampler greedy(options);
  const std::vector<float> logits = {4, 3, 1.6f, -1};
  EXPECT_EQ(greedy.Next(logits), 0);
  EXPECT_EQ(greedy.Next(logits), 1);  // 2, 3, 1.6, -1
  EXPECT_EQ(greedy.Next(logits), 0);  // 2, 1.5, 1.6, -1
  EXPECT_EQ(greedy.Next(logits), 0);  // Once, however often it came
  Sampler negative(options);
  EXPECT_EQ(negative.Next(std::vector<float>{-1, -1.5f, -3}), 0);
  EXPECT_EQ(negative.Next(std::vector<float>{-1, -1.5f, -3}), 1);  // -2, -1.5
}

TEST(SamplerTest, ThePenaltyLooksBackAsFarAsItIsTold) {
  const std::vector<int32_t> prompt = {3, 0, 1};
  const std::vector<float> logits = {4.3f, 4.2f, 2.5f, 4.4f};
  const auto first = [&](int64_t window, double penalty) {
    SamplingOptions options;
    options.repetition_penalty = penalty;
    options.penalty_tokens = window;
    Sampler sampler(options);
    sampler.Remember(prompt);
    return sampler.Next(logits);
  };
  EXPECT_EQ(first(0, 2), 3);
  EXPECT_EQ(first(1, 2), 3);
  EXPECT_EQ(first(2, 2), 3);
  EXPECT_EQ(first(3, 2), 2);
  EXPECT_EQ(first(-1, 2), 2);
  EXPECT_EQ(first(1'000'000'000'000, 2), 2);
  EXPECT_EQ(first(-1, 1), 3);
  EXPECT_EQ(first(2, 0.5), 0);  // Below 1 favours: 8.6, 8.4, 2.5, 4.4
}

// Goal: the penalty is the first step; top-k counts what it leaves.
TEST(SamplerTest, ThePenaltyComesBeforeTopK) {
  SamplingOptions options = Hot(1, 1);
  options.repetition_penalty = 10;
  Sampler sampler(options);
  sampler.Remember(std::vector<int32_t>{1});
  EXPECT_EQ(sampler.Next(std::vector<float>{1, 2, 0.5f}), 0);
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

TEST(SamplerTest, ErrorsNameTheOptionItsValueAndItsRange) {
  const auto refused = [](const std::function<void(SamplingOptions&)>& spoil,
                          const std::string& name) {
    SamplingOptions options;
    spoil(options);
    try {
      Sampler{options};
      ADD_FAILURE() << name;
    } catch (const UsageError& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with(name)) << error.what();
      EXPECT_NE(std::string(error.what()).find("want"), std::string::npos) << error.what();
    }
  };
  for (const double bad : {-0.1, 1.1, double{kNan}, double{kInf}})
    refused([&](SamplingOptions& o) { o.min_p = bad; }, StrCat("min-p is ", bad));
  for (const double bad : {0.0, -1.0, double{kNan}, double{kInf}}) {
    refused([&](SamplingOptions& o) { o.repetition_penalty = bad; },
            StrCat("repetition penalty is ", bad));
  }
  refused([](SamplingOptions& o) { o.penalty_tokens = -2; }, "number of tokens under");
  refused([](SamplingOptions& o) { o.temperature = -1; }, "temperature is -1");
  refused([](SamplingOptions& o) { o.top_k = -1; }, "top-k is -1");
  refused([](SamplingOptions& o) { o.top_p = 2; }, "top-p is 2");
}

// From the highest few, as a device gives them, the same tokens as from all logits.
TEST(SamplerTest, FewDecideAsAllWould) {
  std::vector<float> logits;
  RandomStream random(4, "logits");
  for (int i = 0; i < 300; ++i) logits.push_back(3.0f * random.NextNormal());
  logits[17] = logits[200] = 9.0f;
  std::vector<kernels::TokenLogit> sorted;
  for (const float logit : logits) sorted.push_back({static_cast<int32_t>(sorted.size()), logit});
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.logit > b.logit; });
  for (const SamplingOptions& options :
       {SamplingOptions{}, SamplingOptions{1.0, 1}, SamplingOptions{0.7, 5},
        SamplingOptions{1.5, 40, 0.9}, SamplingOptions{1.5, 40, 0.5, 3, 0.05},
        SamplingOptions{2.0, 299, 0.0}}) {
    Sampler all(options), few(options);
    const int64_t count = few.Deciding(300);
    ASSERT_EQ(count, options.temperature == 0 ? 1 : options.top_k);
    for (int i = 0; i < 200; ++i)
      ASSERT_EQ(few.Pick(std::span(sorted).first(static_cast<size_t>(count))), all.Next(logits));
  }
}

TEST(SamplerTest, SaysHowManyDecide) {
  EXPECT_EQ(Sampler(Hot(0, 0.9)).Deciding(300), 300);
  EXPECT_EQ(Sampler(Hot(1000, 1)).Deciding(300), 300);
  SamplingOptions penalized;
  penalized.repetition_penalty = 1.1;
  EXPECT_EQ(Sampler(penalized).Deciding(300), 300);
  EXPECT_THROW(Sampler(Hot(2, 1)).Pick(std::vector<kernels::TokenLogit>{{-1, 0.0f}, {4, 0.0f}}),
               NumericError);
}

}  // namespace
}  // namespace tern::testing
