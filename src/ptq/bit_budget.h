// Which option of each matrix gives the least loss within a number of bytes: the multiple-choice
// knapsack, solved exactly. Its states are the undominated totals (no other is both smaller and
// better) of the first m matrices; totals of block types are multiples of large numbers, so there
// are few of them (15,000 for 211 matrices of SmolLM2-135M).
#pragma once

#include <cstdint>
#include <vector>

namespace tern::ptq {

struct BitOption {
  int64_t bytes = 0;
  double loss = 0;
};

class BitBudget {
 public:
  // options[m]: of matrix m, at least one each.
  explicit BitBudget(const std::vector<std::vector<BitOption>>& options);

  // Every total that is worth having: bytes rise, losses fall. Not empty.
  const std::vector<BitOption>& front() const { return front_; }
  // The place in front() of the best total within `bytes`, -1 when even the smallest is larger.
  int64_t Within(int64_t bytes) const;
  // The option of each matrix that makes front()[place].
  std::vector<size_t> Choice(int64_t place) const;

 private:
  struct Step {
    uint32_t before;  // State of the matrices before
    uint32_t option;
  };
  std::vector<std::vector<Step>> steps_;  // For each matrix, of its states
  std::vector<BitOption> front_;
};

}  // namespace tern::ptq
