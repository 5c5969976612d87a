// Weights of several losses by their gradients. With g_i the norm of loss i's gradient with respect
// to what all losses share (objective.h) and r_i the recipe's weight, the weight used is
//   w_i = r_i * clamp(G_a / G_i, 1 / limit, limit),  G_i <- s G_i + (1 - s) g_i,
// so that w_i g_i / (w_a g_a) = r_i / r_a: a recipe's weight is the size of the loss's gradient in
// units of the anchor's, whatever the loss's own scale. The anchor a is cross-entropy when it is
// used, else the first loss in the order of recipe::UsedLosses, and keeps its weight. This is
// GradNorm's fixed point without its training rates (Chen et al., arXiv 1711.02257, alpha = 0) with
// the anchor kept in place of the sum of the weights; ModelOpt balances the losses' values by the
// same rule.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "recipe/recipe.h"

namespace tern::distill {

struct LossValue {
  std::string name;
  double value = 0;       // Unweighted
  double weight = 0;      // At this step
  double grad_norm = -1;  // Of the loss at weight 1; negative: not measured
};

class LossBalance {
 public:
  explicit LossBalance(const recipe::LossesConfig& losses);

  bool enabled() const { return config_.by != recipe::BalanceBy::kNone; }
  // Whether the gradients of update `step` (from 0) are to be measured.
  bool IsDue(int64_t step) const { return enabled() && step % config_.every == 0; }
  // A loss that counts has never been measured: its factor would be that of nothing.
  bool Lacks(const std::vector<LossValue>& values) const;
  // What the recipe's weight is multiplied with; 1 unless it and the anchor have been measured.
  double Factor(const std::string& name) const;
  // Takes the norms that were measured and are finite.
  void Observe(const std::vector<LossValue>& values);

  const std::map<std::string, double>& Save() const { return means_; }  // G by loss
  void Load(std::map<std::string, double> means) { means_ = std::move(means); }

 private:
  recipe::BalanceConfig config_;
  std::string anchor_;
  std::map<std::string, double> means_;
};

}  // namespace tern::distill
