// See bit_budget.h.
#include "ptq/bit_budget.h"

#include <algorithm>

#include "base/error.h"

namespace tern::ptq {

BitBudget::BitBudget(const std::vector<std::vector<BitOption>>& options) : front_{{0, 0}} {
  struct Candidate {
    BitOption total;
    Step step;
  };
  std::vector<Candidate> candidates;
  for (const std::vector<BitOption>& of_matrix : options) {
    TERN_CHECK(!of_matrix.empty(), "a matrix without options");
    candidates.clear();
    for (size_t state = 0; state < front_.size(); ++state) {
      for (size_t option = 0; option < of_matrix.size(); ++option) {
        candidates.push_back({{front_[state].bytes + of_matrix[option].bytes,
                               front_[state].loss + of_matrix[option].loss},
                              {static_cast<uint32_t>(state), static_cast<uint32_t>(option)}});
      }
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) {
                       return a.total.bytes != b.total.bytes ? a.total.bytes < b.total.bytes
                                                             : a.total.loss < b.total.loss;
                     });
    front_.clear();
    std::vector<Step>& steps = steps_.emplace_back();
    for (const Candidate& candidate : candidates) {
      if (!front_.empty() && candidate.total.loss >= front_.back().loss) continue;
      front_.push_back(candidate.total);
      steps.push_back(candidate.step);
    }
  }
}

int64_t BitBudget::Within(int64_t bytes) const {
  const auto behind =
      std::upper_bound(front_.begin(), front_.end(), bytes,
                       [](int64_t limit, const BitOption& total) { return limit < total.bytes; });
  return behind - front_.begin() - 1;
}

std::vector<size_t> BitBudget::Choice(int64_t place) const {
  TERN_CHECK(place >= 0 && place < static_cast<int64_t>(front_.size()), "place ", place, " of ",
             front_.size());
  std::vector<size_t> choice(steps_.size());
  auto state = static_cast<size_t>(place);
  for (size_t m = steps_.size(); m-- > 0;) {
    choice[m] = steps_[m][state].option;
    state = steps_[m][state].before;
  }
  return choice;
}

}  // namespace tern::ptq
