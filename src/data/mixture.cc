// See mixture.h.
#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>

#include "base/error.h"

namespace tern::data {
namespace {

constexpr int64_t kStride = 256;  // Samples between two kept states
constexpr double kDecimals = 1e6;
constexpr double kFine = 0x1p40;

// The weights as whole numbers without a common divisor.
std::vector<int64_t> WholeWeights(const std::vector<double>& weights) {
  TERN_CHECK_INPUT(!weights.empty(), "a mixture needs at least one source with training text");
  double sum = 0;
  for (const double weight : weights) {
    TERN_CHECK_INPUT(std::isfinite(weight) && weight > 0, "a weight of the mixture is ", weight,
                     "; want a finite number above 0");
    sum += weight;
  }
  const bool decimals = std::all_of(weights.begin(), weights.end(), [](double weight) {
    const double scaled = weight * kDecimals;  // Exact to one rounding; the nearest whole is meant.
    return scaled < kFine && std::fabs(scaled - std::round(scaled)) <= scaled * 1e-15;
  });
  std::vector<int64_t> whole;
  for (const double weight : weights) {
    const double scaled = decimals ? weight * kDecimals : weight / sum * kFine;
    whole.push_back(std::max<int64_t>(1, std::llround(scaled)));
  }
  const int64_t divisor = std::accumulate(whole.begin(), whole.end(), int64_t{0},
                                          [](int64_t a, int64_t b) { return std::gcd(a, b); });
  for (int64_t& weight : whole) weight /= divisor;
  return whole;
}

// Where the sequence stands: how often each part came; the sum is the next sample.
struct State {
  std::vector<int64_t> counts;

  int64_t Sum() const { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }
};

}  // namespace

struct MixtureOrder::Impl {
  std::vector<int64_t> weights;
  int64_t period = 0;  // Sum of the weights: after it all parts are exactly at their share
  std::mutex mutex;
  std::vector<State> kept;  // At samples 0, kStride, ... of the period; grows as it is asked for
  State cursor;             // The last answer's
  std::vector<int64_t> releases, deadlines;  // Of the cursor's next sample of each part

  // 128 bits: a count and the sum of weights have up to 63 and 47.
  int64_t Release(int64_t count, int64_t weight) const {
    return static_cast<int64_t>(static_cast<__int128>(count) * period / weight);
  }
  int64_t Deadline(int64_t count, int64_t weight) const {
    return static_cast<int64_t>((static_cast<__int128>(count + 1) * period + weight - 1) / weight);
  }
  void SetWindow(size_t part) {
    releases[part] = Release(cursor.counts[part], weights[part]);
    deadlines[part] = Deadline(cursor.counts[part], weights[part]);
  }
  void MoveTo(const State& state) {
    cursor = state;
    for (size_t part = 0; part < weights.size(); ++part) SetWindow(part);
  }

  // The part of sample `at`, which the cursor stands at; moves on.
  size_t Step(int64_t at) {
    size_t best = weights.size();
    for (size_t part = 0; part < weights.size(); ++part) {
      if (releases[part] > at) continue;
      if (best == weights.size() || deadlines[part] < deadlines[best]) best = part;
    }
    TERN_CHECK(best < weights.size() && deadlines[best] > at, "sample ", at, " of a mixture");
    ++cursor.counts[best];
    SetWindow(best);
    return best;
  }

  // Brings the cursor to sample `at` of the period.
  void Seek(int64_t at) {
    const int64_t now = cursor.Sum();
    const int64_t from = std::min(at / kStride, static_cast<int64_t>(kept.size()) - 1);
    if (now > at || now < from * kStride) MoveTo(kept[static_cast<size_t>(from)]);
    for (int64_t i = cursor.Sum(); i < at; ++i) {
      Step(i);
      if (i + 1 == static_cast<int64_t>(kept.size()) * kStride) kept.push_back(cursor);
    }
  }
};

MixtureOrder::MixtureOrder(const std::vector<double>& weights) : impl_(std::make_unique<Impl>()) {
  impl_->weights = WholeWeights(weights);
  impl_->period = std::accumulate(impl_->weights.begin(), impl_->weights.end(), int64_t{0});
  impl_->kept.push_back({std::vector<int64_t>(weights.size(), 0)});
  impl_->releases.resize(weights.size());
  impl_->deadlines.resize(weights.size());
  impl_->MoveTo(impl_->kept.front());
}
MixtureOrder::~MixtureOrder() = default;

MixtureOrder::Pick MixtureOrder::At(int64_t sample) const {
  TERN_CHECK(sample >= 0, "sample ", sample);
  Impl& impl = *impl_;
  if (impl.weights.size() == 1) return {0, sample};
  const std::lock_guard lock(impl.mutex);
  const int64_t round = sample / impl.period, at = sample % impl.period;
  impl.Seek(at);
  const size_t part = impl.Step(at);
  const int64_t index = round * impl.weights[part] + impl.cursor.counts[part] - 1;
  // The step past a period's end is its first state again.
  if (at + 1 == impl.period) {
    impl.MoveTo(impl.kept.front());
  } else if (at + 1 == static_cast<int64_t>(impl.kept.size()) * kStride) {
    impl.kept.push_back(impl.cursor);
  }
  return {static_cast<int64_t>(part), index};
}

std::vector<int64_t> MixtureOrder::Counts(int64_t count) const {
  TERN_CHECK(count >= 0, count, " samples");
  Impl& impl = *impl_;
  if (impl.weights.size() == 1) return {count};
  const std::lock_guard lock(impl.mutex);
  const int64_t rounds = count / impl.period;
  impl.Seek(count % impl.period);
  std::vector<int64_t> counts = impl.cursor.counts;
  for (size_t part = 0; part < counts.size(); ++part) counts[part] += rounds * impl.weights[part];
  return counts;
}

namespace {

std::vector<double> WeightsOf(const std::vector<TokenPart>& parts) {
  std::vector<double> weights;
  for (const TokenPart& part : parts) weights.push_back(part.weight);
  return weights;
}

}  // namespace

MixtureSampler::MixtureSampler(std::vector<TokenPart> parts, int64_t sequence_length, uint64_t seed)
    : parts_(std::move(parts)), order_(WeightsOf(parts_)) {
  for (const TokenPart& part : parts_)
    samplers_.emplace_back(part.tokens, sequence_length, seed, part.name, part.aligned);
}

int64_t MixtureSampler::WindowStart(int64_t index) const {
  const MixtureOrder::Pick pick = order_.At(index);
  const auto part = static_cast<size_t>(pick.part);
  return parts_[part].begin + samplers_[part].WindowStart(pick.index);
}

std::vector<MixtureSampler::Share> MixtureSampler::Shares(int64_t count) const {
  const std::vector<int64_t> counts = order_.Counts(count);
  std::vector<Share> shares;
  for (size_t part = 0; part < parts_.size(); ++part) {
    shares.push_back({parts_[part].name, counts[part],
                      static_cast<double>(counts[part]) /
                          static_cast<double>(samplers_[part].windows_per_epoch())});
  }
  return shares;
}

}  // namespace tern::data
