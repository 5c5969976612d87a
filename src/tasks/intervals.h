// Confidence intervals at 95 %: Wilson's for a share of right answers (Wilson, JASA 22, 1927), the
// percentile bootstrap for everything else (Efron, 1979), seeded: equal calls give equal bits.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace tern::tasks {

struct Interval {
  double low = 0, high = 0;
};

// Of `hits` of `count`. {0, 1} for none.
Interval Wilson(int64_t hits, int64_t count);

inline constexpr int64_t kResamples = 1000;

// The units (documents, windows, questions) are drawn with replacement `resamples` times; the
// interval is from the 2.5th to the 97.5th percentile of what `statistic` says of the draws, given
// as how often each unit was drawn, [units]. Units of one text are not independent of their
// neighbours, so an interval over windows is a little too narrow. {value, value} of one unit.
using Statistic = std::function<double(std::span<const int32_t> times)>;
Interval Bootstrap(int64_t units, uint64_t seed, const Statistic& statistic,
                   int64_t resamples = kResamples);

// Linear between the two nearest of `sorted`, as numpy.percentile. REQUIRES: not empty, 0 <=
// percent <= 100.
double Percentile(std::span<const double> sorted, double percent);

}  // namespace tern::tasks
