// See balance.h.
#include "distill/balance.h"

#include <algorithm>
#include <cmath>

namespace tern::distill {

LossBalance::LossBalance(const recipe::LossesConfig& losses) : config_(losses.balance) {
  const std::vector<recipe::NamedWeight> used = recipe::UsedLosses(losses);
  const bool plain = std::any_of(used.begin(), used.end(), [](const recipe::NamedWeight& loss) {
    return loss.name == recipe::kCrossEntropy;
  });
  if (!used.empty()) anchor_ = plain ? std::string(recipe::kCrossEntropy) : used.front().name;
}

bool LossBalance::Lacks(const std::vector<LossValue>& values) const {
  return enabled() && std::any_of(values.begin(), values.end(), [&](const LossValue& value) {
           return value.weight > 0 && !means_.contains(value.name);
         });
}

double LossBalance::Factor(const std::string& name) const {
  const auto mine = means_.find(name), anchor = means_.find(anchor_);
  if (!enabled() || mine == means_.end() || anchor == means_.end()) return 1;
  if (mine->second == 0 && anchor->second == 0) return 1;
  return std::clamp(anchor->second / mine->second, 1 / config_.limit, config_.limit);
}

void LossBalance::Observe(const std::vector<LossValue>& values) {
  for (const LossValue& value : values) {
    if (value.grad_norm < 0 || !std::isfinite(value.grad_norm)) continue;
    const auto [mean, is_first] = means_.try_emplace(value.name, value.grad_norm);
    if (!is_first)
      mean->second = config_.smoothing * mean->second + (1 - config_.smoothing) * value.grad_norm;
  }
}

}  // namespace tern::distill
