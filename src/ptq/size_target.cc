// See size_target.h.
#include "ptq/size_target.h"

#include <cctype>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "formats/strict_json.h"

namespace tern::ptq {

int64_t SizeTarget::Limit(int64_t weights) const {
  if (size_bytes > 0) return size_bytes;
  return static_cast<int64_t>(bits_per_weight * static_cast<double>(weights) / 8);
}

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

std::optional<SizeTarget> TargetOf(const recipe::QuantizeSettings& settings) {
  if (!settings.to_size.empty() && settings.to_bits > 0)
    throw UsageError("--to-size and --to-bits are two sizes; want one of them");
  if (!settings.to_size.empty()) return SizeTarget{ParseSize(settings.to_size), 0};
  if (settings.to_bits > 0) return SizeTarget{0, settings.to_bits};
  return std::nullopt;
}

std::map<std::string, int64_t> TypeCounts(const SizePlan& plan) {
  std::map<std::string, int64_t> counts;
  for (const auto& [name, type] : plan.types) ++counts[type];
  return counts;
}

nlohmann::json PlanJson(const SizePlan& plan) {
  nlohmann::json front = nlohmann::json::array();
  for (const SizePlan::Point& point : plan.front)
    front.push_back({{"size_bytes", point.size_bytes},
                     {"bits_per_weight", plan.BitsPerWeight(point.size_bytes)},
                     {"predicted_kl", point.predicted_kl}});
  return {
      {"front", front}, {"predicted_kl", plan.chosen.predicted_kl}, {"types", TypeCounts(plan)}};
}

void WritePlan(const std::string& path, const SizePlan& plan) {
  nlohmann::json front = nlohmann::json::array();
  for (const SizePlan::Point& point : plan.front)
    front.push_back({point.size_bytes, point.predicted_kl});
  const nlohmann::json json = {{"types", plan.types},
                               {"chosen", {plan.chosen.size_bytes, plan.chosen.predicted_kl}},
                               {"front", front},
                               {"weights", plan.weights}};
  WriteFileAtomically(path, json.dump() + "\n");
}

SizePlan ReadPlan(const std::string& path) {
  const nlohmann::json json = formats::ParseStrictJson(ReadFile(path), path);
  const auto point = [](const nlohmann::json& of) {
    return SizePlan::Point{of.at(0).get<int64_t>(), of.at(1).get<double>()};
  };
  try {
    SizePlan plan;
    plan.types = json.at("types").get<std::map<std::string, std::string>>();
    plan.chosen = point(json.at("chosen"));
    for (const nlohmann::json& of : json.at("front")) plan.front.push_back(point(of));
    plan.weights = json.at("weights").get<int64_t>();
    return plan;
  } catch (const nlohmann::json::exception& error) {
    throw FormatError(StrCat(path, ": ", error.what(), "; remove it, and it is made again"));
  }
}

}  // namespace tern::ptq
