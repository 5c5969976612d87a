// See intervals.h.
#include "tasks/intervals.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace tern::tasks {

Interval Wilson(int64_t hits, int64_t count) {
  TERN_CHECK(hits >= 0 && hits <= count, hits, " of ", count);
  if (count == 0) return {0, 1};
  constexpr double kZ = 1.959963984540054;  // 97.5th percentile of the standard normal
  const double n = static_cast<double>(count), p = static_cast<double>(hits) / n;
  const double z2 = kZ * kZ, scale = 1 / (1 + z2 / n);
  const double middle = scale * (p + z2 / (2 * n));
  const double half = scale * kZ * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  // Exact where rounding would leave the range by an ulp.
  return {hits == 0 ? 0.0 : middle - half, hits == count ? 1.0 : middle + half};
}

double Percentile(std::span<const double> sorted, double percent) {
  TERN_CHECK(!sorted.empty() && percent >= 0 && percent <= 100, percent, " % of ", sorted.size());
  const double at = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Interval Bootstrap(int64_t units, uint64_t seed, const Statistic& statistic, int64_t resamples) {
  TERN_CHECK(units > 0 && resamples > 0, units, " units, ", resamples, " resamples");
  RandomStream random(seed, "bootstrap");
  std::vector<double> values;
  std::vector<int32_t> times(static_cast<size_t>(units));
  for (int64_t r = 0; r < resamples; ++r) {
    std::fill(times.begin(), times.end(), 0);
    // The remainder's bias is below units / 2^64.
    for (int64_t i = 0; i < units; ++i) ++times[random.NextU64() % static_cast<uint64_t>(units)];
    values.push_back(statistic(times));
  }
  std::sort(values.begin(), values.end());
  return {Percentile(values, 2.5), Percentile(values, 97.5)};
}

}  // namespace tern::tasks
