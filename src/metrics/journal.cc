// See journal.h.
#include "metrics/journal.h"

#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace tern {

double SystemWallClock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string FormatUtc(double seconds) {
  const auto milliseconds = static_cast<int64_t>(std::floor(seconds * 1000.0));
  const int64_t whole = milliseconds >= 0 ? milliseconds / 1000 : (milliseconds - 999) / 1000;
  const auto time = static_cast<std::time_t>(whole);
  std::tm utc{};
  ::gmtime_r(&time, &utc);
  std::array<char, 32> date{};
  std::strftime(date.data(), date.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::array<char, 8> fraction{};
  std::snprintf(fraction.data(), fraction.size(), ".%03dZ",
                static_cast<int>(milliseconds - whole * 1000));
  return StrCat(date.data(), fraction.data());
}

bool RepairJsonLines(const std::string& path) {
  if (!std::filesystem::exists(path)) return false;
  const std::string text = ReadFile(path);
  if (text.empty() || text.back() == '\n') return false;
  WriteFileAtomically(path, std::string_view(text).substr(0, text.rfind('\n') + 1));
  return true;
}

JsonLines ReadJsonLines(const std::string& path) {
  JsonLines lines;
  if (!std::filesystem::exists(path)) return lines;
  const std::string text = ReadFile(path);
  size_t begin = 0;
  for (int64_t number = 1; begin < text.size(); ++number) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) {
      lines.torn = true;
      break;
    }
    auto record =
        nlohmann::json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                              text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    TERN_CHECK_FORMAT(record.is_object(), path, ":", number,
                      ": want a JSON object on this line, found ",
                      text.substr(begin, std::min<size_t>(end - begin, 60)),
                      "; the file was edited or damaged: remove the line");
    lines.records.push_back(std::move(record));
    begin = end + 1;
  }
  return lines;
}

Journal::Journal(std::string path, WallClock clock)
    : path_(std::move(path)), clock_(std::move(clock)) {
  if (!path_.empty()) RepairJsonLines(path_);
}

void Journal::Append(std::string_view event, const nlohmann::json& fields) {
  TERN_CHECK(fields.is_object() && !fields.contains("time") && !fields.contains("event"),
             "fields of event ", event);
  if (path_.empty()) return;
  nlohmann::ordered_json line = {{"time", FormatUtc(clock_())}, {"event", event}};
  for (const auto& [key, value] : fields.items()) line[key] = value;
  // Texts may come from users' files: invalid UTF-8 is replaced, because a diary must never refuse
  // an entry.
  AppendLine(path_, line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  SyncPath(path_);
}

}  // namespace tern
