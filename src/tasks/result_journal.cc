// See result_journal.h.
#include "tasks/result_journal.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "metrics/append_file.h"
#include "metrics/journal.h"

namespace tern::tasks {
namespace {

using nlohmann::json;

bool IsResult(const json& line) {
  const auto has = [&](const char* key) { return line.contains(key); };
  if (line.size() != 4 || !has("key") || !has("item") || !has("values") || !has("text"))
    return false;
  if (!line["values"].is_array()) return false;
  for (const json& value : line["values"])
    if (!value.is_number()) return false;
  return line["key"].is_string() && line["item"].is_number_integer() && line["text"].is_string();
}

}  // namespace

ResultJournal::ResultJournal() = default;
ResultJournal::~ResultJournal() = default;
ResultJournal::ResultJournal(ResultJournal&&) noexcept = default;
ResultJournal& ResultJournal::operator=(ResultJournal&&) noexcept = default;

ResultJournal::ResultJournal(const std::string& path, bool resume) {
  if (!resume && std::filesystem::exists(path) && std::filesystem::file_size(path) > 0)
    throw UsageError(StrCat(path,
                            " has results of an evaluation that was begun; --resume goes on "
                            "with them, or remove the file"));
  RepairJsonLines(path);
  int64_t number = 0;
  for (const json& line : ReadJsonLines(path).records) {
    ++number;
    TERN_CHECK_FORMAT(IsResult(line), path, ":", number,
                      ": no result of an evaluation; the file was edited or damaged: remove it");
    found_[{line["key"].get<std::string>(), line["item"].get<int64_t>()}] = {
        line["values"].get<std::vector<double>>(), line["text"].get<std::string>()};
  }
  file_ = std::make_unique<AppendFile>(path, AppendFile::Mode::kOpenOrCreate);
}

const ItemResult* ResultJournal::Find(const std::string& key, int64_t item) const {
  const auto it = found_.find({key, item});
  return it == found_.end() ? nullptr : &it->second;
}

void ResultJournal::Add(const std::string& key, int64_t item, const ItemResult& result) {
  if (!file_) return;
  const json line = {
      {"key", key}, {"item", item}, {"values", result.values}, {"text", result.text}};
  file_->Write(line.dump() + "\n");
}

}  // namespace tern::tasks
