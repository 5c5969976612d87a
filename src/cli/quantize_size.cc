// See quantize_size.h.
#include "cli/quantize_size.h"

#include <cmath>
#include <sstream>

#include "base/progress.h"
#include "metrics/line_plot.h"

namespace tern::cli {

void AddSizeOptions(CLI::App* command, recipe::QuantizeSettings* settings) {
  CLI::Option* size = command->add_option(
      "--to-size", settings->to_size,
      "Instead of --to: the types with the least predicted KL in this size (90MiB), of a GGUF file "
      "or, when -o does not end in .gguf, of a compressed-tensors folder");
  command
      ->add_option("--to-bits", settings->to_bits,
                   "The same, of the file's bits for each weight (4.5)")
      ->check(CLI::Range(1.0, 32.0))
      ->excludes(size);
  command->add_option("--types", settings->types,
                      "The types that may be chosen: q4_0,q6_k of a file, int4,w8 of a folder; "
                      "default: all, w2,w3,int4,w8");
}

std::string DescribeFront(const ptq::SizePlan& plan) {
  std::ostringstream out;
  out << "  bits a weight, size and predicted KL of what could be had:\n";
  for (const ptq::SizePlan::Point& point : plan.front) {
    out << "    " << FormatFixed(plan.BitsPerWeight(point.size_bytes), 2) << "  "
        << FormatBytes(static_cast<double>(point.size_bytes)) << "  " << point.predicted_kl << "\n";
  }
  return out.str();
}

std::string PlotFront(const ptq::SizePlan& plan) {
  Curve curve{"the best choice of types", {}, false};
  for (const ptq::SizePlan::Point& point : plan.front) {
    if (!(point.predicted_kl > 0)) continue;  // No logarithm
    curve.points.emplace_back(point.size_bytes / 1000, std::log10(point.predicted_kl));
  }
  return LinePlot({curve}, "size, kB", "log10 of the predicted KL, nats a token");
}

std::string DescribePlan(const ptq::SizePlan& plan) {
  std::ostringstream out;
  out << "  types:";
  for (const auto& [type, count] : ptq::TypeCounts(plan)) out << " " << count << " " << type;
  out << "\n"
      << DescribeFront(plan) << "  chosen: " << plan.chosen.size_bytes << " bytes, predicted KL "
      << plan.chosen.predicted_kl << "\n";
  return out.str();
}

}  // namespace tern::cli
