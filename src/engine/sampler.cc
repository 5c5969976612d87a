// See sampler.h.
#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

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

template <class T>
void CheckOption(const char* name, T value, bool fits, const char* want) {
  if (!fits) throw UsageError(StrCat(name, " is ", value, "; want ", want));
}

bool IsShare(double value) { return value >= 0 && value <= 1; }  // False for NaN

}  // namespace

Sampler::Sampler(const SamplingOptions& options)
    : options_(options), stream_(options.seed, "sampling") {
  CheckOption("temperature", options.temperature,
              options.temperature >= 0 && std::isfinite(options.temperature),
              "0 (greedy) or more, finite");
  CheckOption("top-k", options.top_k, options.top_k >= 0, "0 (all) or more");
  CheckOption("top-p", options.top_p, IsShare(options.top_p), "0 to 1 (all)");
  CheckOption("min-p", options.min_p, IsShare(options.min_p), "0 (all) to 1");
  CheckOption("repetition penalty", options.repetition_penalty,
              options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty),
              "above 0, finite (1: none)");
  CheckOption("number of tokens under the repetition penalty", options.penalty_tokens,
              options.penalty_tokens >= -1, "-1 (all), 0 (off) or more");
}

void Sampler::Remember(std::span<const int32_t> tokens) {
  if (options_.repetition_penalty == 1) return;
  history_.insert(history_.end(), tokens.begin(), tokens.end());
}

bool Sampler::Below(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit < b.logit : a.id > b.id;
}

int32_t Sampler::Next(std::span<const float> logits) {
  CheckLogits(logits);
  Penalize(logits);
  int32_t id;
  if (options_.temperature == 0) {
    id = std::max_element(candidates_.begin(), candidates_.end(), Below)->id;
  } else {
    KeepMostProbable();
    KeepMinP();
    id = Draw();
  }
  Remember({&id, 1});
  return id;
}

// Fills the candidates, in order of their ids.
void Sampler::Penalize(std::span<const float> logits) {
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates_[i] = {logits[i], static_cast<int32_t>(i)};
  std::span<int32_t> recent = history_;
  if (options_.penalty_tokens >= 0) {
    recent = recent.last(std::min(recent.size(), static_cast<size_t>(options_.penalty_tokens)));
  }
  std::vector<int32_t> ids(recent.begin(), recent.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());  // However often a token came
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= candidates_.size()) continue;
    double& logit = candidates_[static_cast<size_t>(id)].logit;
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
  }
}

// Top-k and top-p. A heap gives the most probable tokens one after the other, so that the usual few
// of a large vocabulary cost no sort of it.
void Sampler::KeepMostProbable() {
  std::vector<Candidate>& heap = candidates_;
  const size_t size = heap.size();
  const size_t limit = options_.top_k > 0 && static_cast<uint64_t>(options_.top_k) < size
                           ? static_cast<size_t>(options_.top_k)
                           : size;
  if (limit == size && options_.top_p == 1) return;
  std::make_heap(heap.begin(), heap.end(), Below);
  const double highest = heap.front().logit;
  const auto weight = [&](const Candidate& c) { return std::exp(c.logit - highest); };
  size_t sorted = 0;
  std::vector<Candidate> best;
  const auto next = [&] {
    std::pop_heap(heap.begin(), heap.end() - static_cast<int64_t>(sorted), Below);
    best.push_back(heap[size - ++sorted]);
  };
  double all = 0;
  if (limit < size) {
    while (best.size() < limit) next();
    for (const Candidate& c : best) all += weight(c);
  } else {
    for (const Candidate& c : heap) all += weight(c);
  }
  size_t count = 0;
  double kept = 0;
  if (options_.top_p == 1) {
    count = limit;
  } else {
    do {
      if (count == best.size()) next();
      kept += weight(best[count++]);
    } while (count < limit && kept < options_.top_p * all);
  }
  best.resize(count);
  candidates_ = std::move(best);
}

void Sampler::KeepMinP() {
  if (options_.min_p == 0) return;
  const double highest = std::max_element(candidates_.begin(), candidates_.end(), Below)->logit;
  const double lowest = highest + std::log(options_.min_p);
  std::erase_if(candidates_, [&](const Candidate& c) { return c.logit < lowest; });
}

int32_t Sampler::Draw() {
  const double highest = std::max_element(candidates_.begin(), candidates_.end(), Below)->logit;
  std::vector<double> weights;
  double all = 0;
  for (const Candidate& c : candidates_) {
    weights.push_back(std::exp((c.logit - highest) / options_.temperature));
    all += weights.back();
  }
  double draw = static_cast<double>(stream_.NextU64() >> 11) * 0x1.0p-53 * all;  // In [0, all)
  size_t last = 0;  // With a weight: what rounding leaves over goes there
  for (size_t i = 0; i < weights.size(); ++i) {
    if (draw < weights[i]) return candidates_[i].id;
    draw -= weights[i];
    if (weights[i] > 0) last = i;
  }
  return candidates_[last].id;
}

}  // namespace tern::engine
