// See line_plot.h.
#include "metrics/line_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iomanip>
#include <limits>
#include <sstream>

#include "base/error.h"

namespace tern {
namespace {

constexpr int kWidth = 760, kHeight = 400, kLeft = 60, kRight = 16, kTop = 16, kBottom = 44;
constexpr std::array kColours = {"#1f6feb", "#d1571b", "#1a7f37", "#8250df",
                                 "#bf3989", "#57606a", "#9a6700", "#0b8f8f"};

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

// 1, 2 or 5 times a power of ten, so that about five of them fill `range`.
double RoundSpacing(double range) {
  const double rough = range / 5, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) return factor * power;
  }
  return 10 * power;
}

class Axes {
 public:
  explicit Axes(const std::vector<Curve>& curves) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (const Curve& curve : curves) {
      for (const auto& [step, value] : curve.points) {
        if (!std::isfinite(value)) continue;
        last_ = std::max(last_, step);
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
    TERN_CHECK_INPUT(low <= high, "there is nothing to draw: no curve has a finite value");
    if (low == high) high = low + std::max(1e-3, std::fabs(low) * 1e-3);
    spacing_ = RoundSpacing(high - low);
    low_ = std::floor(low / spacing_) * spacing_;
    high_ = std::ceil(high / spacing_) * spacing_;
  }

  double X(int64_t step) const {
    return kLeft + (kWidth - kLeft - kRight) * static_cast<double>(step) /
                       static_cast<double>(std::max<int64_t>(last_, 1));
  }
  double Y(double value) const {
    return kTop + (kHeight - kTop - kBottom) * (high_ - value) / (high_ - low_);
  }

  void Draw(const std::string& x_label, const std::string& y_label, std::ostream& out) const {
    const auto lines = static_cast<int>(std::lround((high_ - low_) / spacing_));
    for (int i = 0; i <= lines; ++i) {
      const double value = low_ + i * spacing_, y = Y(value);
      out << "<line x1=\"" << kLeft << "\" y1=\"" << y << "\" x2=\"" << kWidth - kRight
          << "\" y2=\"" << y << "\" stroke=\"#d8dee4\"/>\n<text x=\"" << kLeft - 8 << "\" y=\""
          << y + 4 << "\" text-anchor=\"end\">" << std::setprecision(6) << std::defaultfloat
          << std::round(value / spacing_) * spacing_ << std::fixed << std::setprecision(1)
          << "</text>\n";
    }
    for (int64_t part = 0; part <= 4; ++part) {
      const int64_t step = last_ * part / 4;
      out << "<text x=\"" << X(step) << "\" y=\"" << kHeight - 24 << "\" text-anchor=\"middle\">"
          << step << "</text>\n";
    }
    out << "<text x=\"" << (kLeft + kWidth) / 2 << "\" y=\"" << kHeight - 6
        << "\" text-anchor=\"middle\">" << Escaped(x_label) << "</text>\n<text x=\"14\" y=\""
        << kHeight / 2 << "\" text-anchor=\"middle\" transform=\"rotate(-90 14 " << kHeight / 2
        << ")\">" << Escaped(y_label) << "</text>\n";
  }

 private:
  int64_t last_ = 0;
  double low_ = 0, high_ = 1, spacing_ = 1;
};

void DrawCurve(const Curve& curve, const Axes& axes, const char* colour, std::ostream& out) {
  if (curve.dotted) {
    for (const auto& [step, value] : curve.points) {
      if (!std::isfinite(value)) continue;
      out << "<circle cx=\"" << axes.X(step) << "\" cy=\"" << axes.Y(value) << "\" r=\"4\" fill=\""
          << colour << "\"/>\n";
    }
    return;
  }
  out << "<path fill=\"none\" stroke=\"" << colour << "\" stroke-width=\"1.6\" d=\"";
  bool drawing = false;
  for (const auto& [step, value] : curve.points) {
    if (std::isfinite(value))
      out << (drawing ? "L" : "M") << axes.X(step) << ',' << axes.Y(value) << ' ';
    drawing = std::isfinite(value);
  }
  out << "\"/>\n";
}

}  // namespace

std::string LinePlot(const std::vector<Curve>& curves, const std::string& x_label,
                     const std::string& y_label) {
  const Axes axes(curves);
  std::ostringstream out;
  out << std::fixed << std::setprecision(1);
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << kWidth << ' ' << kHeight
      << "\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"" << kWidth
      << "\" height=\"" << kHeight << "\" fill=\"white\"/>\n";
  axes.Draw(x_label, y_label, out);
  for (size_t i = 0; i < curves.size(); ++i) {
    const char* colour = kColours[i % kColours.size()];
    DrawCurve(curves[i], axes, colour, out);
    out << "<text x=\"" << kWidth - kRight - 8 << "\" y=\"" << kTop + 18 + 18 * i
        << "\" text-anchor=\"end\" fill=\"" << colour << "\">" << Escaped(curves[i].name)
        << "</text>\n";
  }
  out << "</svg>\n";
  return out.str();
}

}  // namespace tern
