// See schedule.h.
#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tern::train {
namespace {

double Lerp(double from, double to, double share) {
  return from + (to - from) * std::clamp(share, 0.0, 1.0);
}

double TwoStage(const recipe::ScheduleConfig& s, double progress) {
  if (progress < s.switch_at) return Lerp(s.peak_lr, s.second_lr, progress / s.switch_at);
  return Lerp(s.second_lr, s.final_lr, (progress - s.switch_at) / (1.0 - s.switch_at));
}

double WarmupStableDecay(const recipe::ScheduleConfig& s, double progress) {
  const double decay_from = 1.0 - s.decay_share;
  if (progress < decay_from) return s.peak_lr;
  return Lerp(s.peak_lr, s.final_lr, (progress - decay_from) / s.decay_share);
}

// The schedule without warm-up, progress in [0, 1).
double Body(const recipe::ScheduleConfig& s, double progress) {
  switch (s.kind) {
    case recipe::ScheduleKind::kTwoStage:
      return TwoStage(s, progress);
    case recipe::ScheduleKind::kCosine:
      return s.final_lr +
             (s.peak_lr - s.final_lr) * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
    case recipe::ScheduleKind::kLinear:
      return Lerp(s.peak_lr, s.final_lr, progress);
    case recipe::ScheduleKind::kWsd:
      return WarmupStableDecay(s, progress);
    case recipe::ScheduleKind::kConstant:
      return s.peak_lr;
  }
  __builtin_unreachable();
}

}  // namespace

double LearningRate(const recipe::ScheduleConfig& schedule, int64_t step, int64_t steps) {
  const double progress =
      static_cast<double>(step) / static_cast<double>(std::max<int64_t>(steps, 1));
  const double rate = Body(schedule, progress);
  if (step >= schedule.warmup_steps) return rate;
  return rate * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps + 1);
}

double WeightDecay(const recipe::OptimizerConfig& optimizer, int64_t step, int64_t steps) {
  const bool active =
      static_cast<double>(step) < optimizer.weight_decay_until * static_cast<double>(steps);
  return active ? optimizer.weight_decay : 0.0;
}

}  // namespace tern::train
