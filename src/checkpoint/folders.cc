// Listing, choosing and deleting the checkpoints of a folder. See checkpoint.h.
#include "checkpoint/folders.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"

namespace tern::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr char kNamePrefix[] = "step-";
constexpr size_t kMinDigits = 8, kMaxDigits = 18;  // 18 digits always fit an int64.

struct Candidate {
  std::string path;
  int64_t step = 0;
};

// Folders with a checkpoint's name, newest first.
std::vector<Candidate> ListCandidates(const std::string& folder) {
  std::vector<Candidate> candidates;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto step = StepOfFolderName(entry.path().filename().string());
    if (step && entry.is_directory())
      candidates.push_back({folder + "/" + FolderName(*step), *step});
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.step > b.step; });
  return candidates;
}

// The first candidate, in the order given, that verifies.
Found FirstValid(const std::vector<Candidate>& candidates, std::vector<Refused> refused) {
  Found found{std::nullopt, 0, std::move(refused)};
  for (const Candidate& candidate : candidates) {
    try {
      const CheckpointReader reader(candidate.path);
      found.path = candidate.path;
      found.step = candidate.step;
      return found;
    } catch (const BugError&) {
      throw;
    } catch (const Error& error) {
      found.refused.push_back({candidate.path, error.what()});
    }
  }
  return found;
}

// Steps whose manifest and file sizes are in order, newest first, with their value of `metric` if
// they have it.
std::vector<std::pair<int64_t, std::optional<double>>> ListWhole(const std::string& folder,
                                                                 const std::string& metric) {
  std::vector<std::pair<int64_t, std::optional<double>>> whole;
  for (const Candidate& candidate : ListCandidates(folder)) {
    try {
      const Manifest manifest = ReadManifest(candidate.path);
      CheckSizes(manifest, candidate.path);
      const auto value = manifest.metrics.find(metric);
      whole.emplace_back(candidate.step, value == manifest.metrics.end()
                                             ? std::nullopt
                                             : std::optional<double>(value->second));
    } catch (const FormatError&) {
      continue;  // Not ours to judge or to delete: FindNewestValid says what is wrong with it.
    }
  }
  return whole;
}

void DeleteFolder(const std::string& folder, int64_t step) {
  const std::string path = folder + "/" + FolderName(step);
  const std::string away = StrCat(folder, "/", kDeletedPrefix, FolderName(step), ".", ::getpid());
  std::error_code error;
  fs::remove_all(away, error);
  fs::rename(path, away, error);
  if (!error) {
    SyncPath(folder);
    fs::remove_all(away, error);
  }
  if (error)
    throw ResourceError(StrCat("cannot delete old checkpoint ", path, ": ", error.message()));
}

}  // namespace

std::string FolderName(int64_t step) {
  std::array<char, 32> name{};
  std::snprintf(name.data(), name.size(), "%s%08lld", kNamePrefix, static_cast<long long>(step));
  return name.data();
}

std::optional<int64_t> StepOfFolderName(std::string_view name) {
  if (!name.starts_with(kNamePrefix)) return std::nullopt;
  const std::string_view digits = name.substr(sizeof kNamePrefix - 1);
  if (digits.size() < kMinDigits || digits.size() > kMaxDigits) return std::nullopt;
  int64_t step = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    step = step * 10 + (c - '0');
  }
  return FolderName(step) == name ? std::optional(step) : std::nullopt;
}

Found FindNewestValid(const std::string& folder) { return FirstValid(ListCandidates(folder), {}); }

Found FindBestValid(const std::string& folder, const std::string& metric) {
  std::vector<std::pair<double, Candidate>> order;
  std::vector<Refused> refused;
  for (const Candidate& candidate : ListCandidates(folder)) {
    try {
      const Manifest manifest = ReadManifest(candidate.path);
      const auto value = manifest.metrics.find(metric);
      if (value != manifest.metrics.end()) order.emplace_back(value->second, candidate);
    } catch (const FormatError& error) {
      refused.push_back({candidate.path, error.what()});
    }
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Candidate> candidates;
  for (auto& [value, candidate] : order) candidates.push_back(std::move(candidate));
  return FirstValid(candidates, std::move(refused));
}

std::vector<int64_t> ApplyRetention(const std::string& folder, const Retention& retention) {
  TERN_CHECK(retention.keep_last >= 1, "keep_last ", retention.keep_last);
  const auto whole = ListWhole(folder, retention.best_metric);
  std::set<int64_t> kept;
  std::optional<std::pair<double, int64_t>> best;
  for (size_t i = 0; i < whole.size(); ++i) {
    const auto& [step, value] = whole[i];
    if (static_cast<int64_t>(i) < retention.keep_last) kept.insert(step);
    if (!retention.best_metric.empty() && value && (!best || *value < best->first))
      best = {*value, step};
  }
  if (best) kept.insert(best->second);
  std::vector<int64_t> deleted;
  for (const auto& [step, value] : whole) {
    if (kept.contains(step)) continue;
    DeleteFolder(folder, step);
    deleted.push_back(step);
  }
  return deleted;
}

int64_t RemoveLeftovers(const std::string& folder) {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(StrCat(kTemporaryPrefix, kNamePrefix)) ||
        name.starts_with(StrCat(kDeletedPrefix, kNamePrefix))) {
      leftovers.push_back(entry.path());
    }
  }
  for (const fs::path& path : leftovers) {
    fs::remove_all(path, error);
    if (error)
      throw ResourceError(StrCat("cannot remove leftover ", path.string(), ": ", error.message()));
  }
  return static_cast<int64_t>(leftovers.size());
}

}  // namespace tern::checkpoint
