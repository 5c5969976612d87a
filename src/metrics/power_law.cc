// See power_law.h.
#include "metrics/power_law.h"

#include <cmath>

namespace tern {

constexpr int64_t kLeastPoints = 4;

double PowerLaw::At(double tokens) const { return coefficient * std::pow(tokens, -exponent); }

double PowerLaw::TokensTo(double excess) const {
  return std::pow(coefficient / excess, 1 / exponent);
}

std::optional<PowerLaw> FitPowerLaw(const std::vector<std::pair<int64_t, double>>& excess) {
  std::vector<std::pair<double, double>> logs;
  double mean_x = 0, mean_y = 0;
  for (const auto& [tokens, y] : excess) {
    if (tokens <= 0 || !std::isfinite(y) || y <= 0) continue;
    logs.emplace_back(std::log(static_cast<double>(tokens)), std::log(y));
    mean_x += logs.back().first;
    mean_y += logs.back().second;
  }
  PowerLaw law;
  law.points = static_cast<int64_t>(logs.size());
  if (law.points < kLeastPoints) return std::nullopt;
  mean_x /= static_cast<double>(law.points);
  mean_y /= static_cast<double>(law.points);
  double xx = 0, xy = 0, yy = 0;
  for (const auto& [x, y] : logs) {
    xx += (x - mean_x) * (x - mean_x);
    xy += (x - mean_x) * (y - mean_y);
    yy += (y - mean_y) * (y - mean_y);
  }
  if (!(xy < 0)) return std::nullopt;  // Neither for points at one t, where xx is 0
  law.exponent = -xy / xx;
  law.coefficient = std::exp(mean_y + law.exponent * mean_x);
  law.r_squared = xy * xy / (xx * yy);
  return law;
}

}  // namespace tern
