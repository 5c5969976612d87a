// A size that a mixture of types is chosen for, and what came of the choice: the same for GGUF
// files (gguf_budget.h) and folders (folder_budget.h).
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "recipe/quantize_settings.h"

namespace tern::ptq {

// One of them is above 0.
struct SizeTarget {
  int64_t size_bytes = 0;      // Of the file
  double bits_per_weight = 0;  // 8 x the file's bytes / the matrices' weights

  int64_t Limit(int64_t weights) const;  // Bytes at most
};

// A target for a front alone, which is the same for all.
inline constexpr double kAnyBits = 16;
// Sizes of a plan's front.
inline constexpr int64_t kFrontPoints = 16;

// "3.2GiB", "90 MiB", "500MB", "1000000": bytes. Throws UsageError.
int64_t ParseSize(const std::string& text);

// What `to_size` or `to_bits` ask for; nothing: neither is given. Throws UsageError for both.
std::optional<SizeTarget> TargetOf(const recipe::QuantizeSettings& settings);

struct SizePlan {
  struct Point {
    int64_t size_bytes = 0;
    double predicted_kl = 0;  // Nats a token
  };
  std::map<std::string, std::string> types;  // Of every matrix, by parameter name
  Point chosen;
  std::vector<Point> front;  // The best at up to 16 sizes from the smallest to the largest
  double BitsPerWeight(int64_t size_bytes) const {
    return 8.0 * static_cast<double>(size_bytes) / static_cast<double>(weights);
  }
  int64_t weights = 0;  // Of the matrices that have bits: what bits a weight are of
};

std::map<std::string, int64_t> TypeCounts(const SizePlan& plan);
nlohmann::json PlanJson(const SizePlan& plan);

// A plan in a file, whole. Throws FormatError.
void WritePlan(const std::string& path, const SizePlan& plan);
SizePlan ReadPlan(const std::string& path);

}  // namespace tern::ptq
