// See sampler.h.
#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace tern::engine {
namespace {

void CheckLogits(std::span<const float> logits) {
  float highest = -INFINITY;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]))
      throw NumericError(StrCat("logit of token ", i, " is NaN: the model file is damaged"));
    highest = std::max(highest, logits[i]);
  }
  if (!std::isfinite(highest))
    throw NumericError(StrCat("the highest logit is ", highest, ": the model file is damaged"));
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options)
    : options_(options), stream_(options.seed, "sampling") {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
    throw UsageError(StrCat("temperature is ", options.temperature, "; want 0 or more"));
  }
  if (options.top_k < 0)
    throw UsageError(StrCat("top-k is ", options.top_k, "; want 0 (all) or more"));
  if (!(options.top_p >= 0 && options.top_p <= 1))
    throw UsageError(StrCat("top-p is ", options.top_p, "; want 0 to 1"));
}

int32_t Sampler::Next(std::span<const float> logits) {
  CheckLogits(logits);
  if (options_.temperature == 0) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::sort(order.begin(), order.end(), before);
  if (options_.top_k > 0 && options_.top_k < static_cast<int64_t>(order.size())) {
    order.resize(static_cast<size_t>(options_.top_k));
  }
  std::vector<double> weights;
  const double highest = logits[static_cast<size_t>(order[0])];
  for (const int32_t id : order) {
    weights.push_back(std::exp((logits[static_cast<size_t>(id)] - highest) / options_.temperature));
  }
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0;
  size_t count = 0;
  do kept += weights[count++];
  while (count < weights.size() && kept < options_.top_p * all);
  double draw =
      static_cast<double>(stream_.NextU64() >> 11) * 0x1.0p-53 * kept;  // Uniform in [0, kept).
  for (size_t i = 0; i < count; ++i) {
    if (draw < weights[i]) return order[i];
    draw -= weights[i];
  }
  return order[count - 1];  // Rounding of the sum.
}

}  // namespace tern::engine
