// Learning curves as power laws: the excess of a loss over the one it falls towards,
//   y(t) = c t^-e,
// with t in tokens (Hestness et al., arXiv 1712.00409; Kaplan et al., arXiv 2001.08361).
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace tern {

struct PowerLaw {
  double coefficient = 0;  // c, nats at one token
  double exponent = 0;     // e > 0
  double r_squared = 0;    // Of log y, in [0, 1]: share of its variance that the law explains
  int64_t points = 0;

  double At(double tokens) const;
  // Tokens after which the excess is `excess` nats.
  double TokensTo(double excess) const;
};

// Least squares in (log t, log y) over the points with t > 0 and finite y > 0. None for fewer than
// four of them, or when they do not fall.
std::optional<PowerLaw> FitPowerLaw(const std::vector<std::pair<int64_t, double>>& excess);

}  // namespace tern
