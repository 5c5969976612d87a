// See quantize_size.h.
#include "cli/quantize_size.h"

#include <cmath>
#include <cstdlib>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/progress.h"

namespace tern::cli {
namespace {

std::map<std::string, int64_t> TypeCounts(const ptq::GgufPlan& plan) {
  std::map<std::string, int64_t> counts;
  for (const auto& [name, type] : plan.types) ++counts[std::string(formats::InfoOf(type).name)];
  return counts;
}

}  // namespace

int64_t ParseSize(const std::string& text) {
  static const std::map<std::string, double> kUnits = {
      {"", 1},      {"B", 1},        {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},
      {"TB", 1e12}, {"KIB", 0x1p10}, {"MIB", 0x1p20}, {"GIB", 0x1p30}, {"TIB", 0x1p40},
  };
  char* behind = nullptr;
  const double number = std::strtod(text.c_str(), &behind);
  std::string unit;
  for (; *behind != 0; ++behind)
    if (*behind != ' ')
      unit += static_cast<char>(std::toupper(static_cast<unsigned char>(*behind)));
  const auto found = kUnits.find(unit);
  const double size_bytes = found == kUnits.end() ? NAN : number * found->second;
  // 2^62: an int64 with room to add to.
  if (!(size_bytes >= 1 && size_bytes < 0x1p62))
    throw UsageError(StrCat("a size of '", text,
                            "'; want a number and B, KB, MB, GB, KiB, MiB or "
                            "GiB, such as 90MiB"));
  return static_cast<int64_t>(size_bytes);
}

void AddSizeOptions(CLI::App* command, const std::shared_ptr<ptq::SizeTarget>& target) {
  CLI::Option* size = command->add_option_function<std::string>(
      "--to-size", [target](const std::string& text) { target->size_bytes = ParseSize(text); },
      "GGUF: instead of --to, the types with the least predicted KL in a file of this size "
      "(90MiB)");
  command
      ->add_option("--to-bits", target->bits_per_weight,
                   "The same, of the file's bits for each weight (4.5)")
      ->check(CLI::Range(1.0, 32.0))
      ->excludes(size);
}

std::string DescribePlan(const ptq::GgufPlan& plan) {
  std::ostringstream out;
  out << "  types:";
  for (const auto& [type, count] : TypeCounts(plan)) out << " " << count << " " << type;
  out << "\n  size and predicted KL of what could be had:\n";
  for (const ptq::GgufPlan::Point& point : plan.front) {
    out << "    " << FormatBytes(static_cast<double>(point.size_bytes)) << "  "
        << point.predicted_kl << "\n";
  }
  out << "  chosen: " << plan.chosen.size_bytes << " bytes, predicted KL "
      << plan.chosen.predicted_kl << "\n";
  return out.str();
}

nlohmann::json PlanJson(const ptq::GgufPlan& plan) {
  nlohmann::json front = nlohmann::json::array();
  for (const ptq::GgufPlan::Point& point : plan.front)
    front.push_back({{"size_bytes", point.size_bytes}, {"predicted_kl", point.predicted_kl}});
  return {
      {"front", front}, {"predicted_kl", plan.chosen.predicted_kl}, {"types", TypeCounts(plan)}};
}

}  // namespace tern::cli
