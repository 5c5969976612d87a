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

bool Sampler::Above(const Candidate& a, const Candidate& b) { return Below(b, a); }

int64_t Sampler::Deciding(int64_t choices) const {
  if (options_.repetition_penalty != 1) return choices;
  return options_.temperature == 0 ? std::min<int64_t>(choices, 1) : TopK(choices);
}

int64_t Sampler::TopK(int64_t choices) const {
  return options_.top_k > 0 ? std::min(options_.top_k, choices) : choices;
}

int32_t Sampler::Next(std::span<const float> logits) {
  CheckLogits(logits);
  Penalize(logits);
  const bool greedy = options_.temperature == 0;
  if (!greedy) KeepMostProbable();
  const int32_t id =
      greedy ? std::max_element(candidates_.begin(), candidates_.end(), Below)->id : Choose();
  Remember({&id, 1});
  return id;
}

int32_t Sampler::Pick(std::span<const kernels::TokenLogit> best) {
  if (best.front().id < 0)
    throw NumericError(
        "a logit is NaN or +Inf, or all are -Inf: the model file is damaged, or a key, a value or "
        "a weight is beyond the 65504 of fp16, in which a device keeps them (--device cpu need "
        "not)");
  if (options_.temperature == 0) return best.front().id;
  candidates_.clear();
  for (const kernels::TokenLogit& token : best) candidates_.push_back({token.logit, token.id});
  KeepTopPOfSorted();
  return Choose();
}

// Of what top-k and top-p left.
int32_t Sampler::Choose() {
  KeepMinP();
  return Draw();
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

// A heap gives the most probable tokens one after the other, so that the usual few of a large
// vocabulary cost no sort of it.
void Sampler::KeepMostProbable() {
  const auto size = static_cast<int64_t>(candidates_.size());
  if (const int64_t count = TopK(size); count < size) {
    std::partial_sort(candidates_.begin(), candidates_.begin() + count, candidates_.end(), Above);
    candidates_.resize(static_cast<size_t>(count));
    return KeepTopPOfSorted();
  }
  if (options_.top_p == 1) return;
  std::vector<Candidate>& heap = candidates_;
  std::make_heap(heap.begin(), heap.end(), Below);
  const double highest = heap.front().logit;
  double all = 0, kept = 0;
  for (const Candidate& c : heap) all += std::exp(c.logit - highest);
  std::vector<Candidate> best;
  do {
    std::pop_heap(heap.begin(), heap.end(), Below);
    best.push_back(heap.back());
    heap.pop_back();
    kept += std::exp(best.back().logit - highest);
  } while (!heap.empty() && kept < options_.top_p * all);
  candidates_ = std::move(best);
}

void Sampler::KeepTopPOfSorted() {
  if (options_.top_p == 1) return;
  const auto weight = [&](const Candidate& c) {
    return std::exp(c.logit - candidates_.front().logit);
  };
  double all = 0, kept = 0;
  for (const Candidate& c : candidates_) all += weight(c);
  size_t count = 0;
  do {
    kept += weight(candidates_[count++]);
  } while (count < candidates_.size() && kept < options_.top_p * all);
  candidates_.resize(count);
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
