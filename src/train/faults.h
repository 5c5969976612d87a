// Watches the loss and the gradient norm and says what the recipe wants done when they go bad:
// stop, skip the update, or roll back to the last checkpoint and pass over the data in between
// (train.faults). Loss-scaling overflows are not faults: the scaler handles them.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "recipe/recipe.h"

namespace tern::train {

struct Fault {
  recipe::FaultAction action;
  std::string reason;  // For the journal: what was seen against which limit
};

class FaultMonitor {
 public:
  explicit FaultMonitor(const recipe::FaultPolicy& policy) : policy_(policy) {}

  // Looks at one step before its update. Throws NumericError when the policy says stop, or after
  // max_events faults. A healthy step updates the running mean and variance of the loss; a faulty
  // one does not. where: added to the reason of what is not finite ("on rank 1"), may be empty.
  std::optional<Fault> Check(double loss, double grad_norm, const std::string& where = "");

  nlohmann::json Save() const;
  void Load(const nlohmann::json& state);

 private:
  std::optional<Fault> Judge(double loss, double grad_norm, const std::string& where) const;

  recipe::FaultPolicy policy_;
  double mean_ = 0, variance_ = 0;  // Exponential moving, over about kWindow steps
  int64_t seen_ = 0;
  int64_t events_ = 0;
};

}  // namespace tern::train
