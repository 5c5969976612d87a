// Curves over steps as one SVG picture with axes and a legend.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tern {

struct Curve {
  std::string name;
  std::vector<std::pair<int64_t, double>> points;  // (step, value), steps rise
  bool dotted = false;                             // Dots only, for a few points
};

// Both axes are linear; the vertical one ends at round numbers around the values. A value that is
// not finite leaves a gap. Throws InputError when no curve has a point.
std::string LinePlot(const std::vector<Curve>& curves, const std::string& x_label,
                     const std::string& y_label);

}  // namespace tern
