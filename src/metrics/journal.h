// The run's diary: journal.jsonl, one JSON object a line, appended and never rewritten, so that
// what happened can be told after any crash (docs/formats/journal.md). A line torn by a crash is
// cut off when the file is opened again. Also the line reader that metrics.jsonl and ledger.jsonl
// share. Does not interpret events: their names are the callers'.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace tern {

// Seconds since 1970-01-01 UTC. Tests pass their own.
using WallClock = std::function<double()>;
double SystemWallClock();

// "2026-11-24T08:51:40.123Z".
std::string FormatUtc(double seconds);

class Journal {
 public:
  // Opens or makes `path` for appending and cuts off a torn last line. Throws ResourceError when it
  // cannot be written. An empty path keeps nothing: of several ranks, one keeps the diary.
  explicit Journal(std::string path, WallClock clock = SystemWallClock);

  // Appends {"time": ..., "event": event, fields...}. `fields` is an object without "time" and
  // "event". The line is on disk (fsync) when this returns, so use it for events, not for steps.
  // Throws ResourceError (disk full).
  void Append(std::string_view event, const nlohmann::json& fields = nlohmann::json::object());

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  WallClock clock_;
};

struct JsonLines {
  std::vector<nlohmann::json> records;
  bool torn = false;  // The file ended within a line, which is left out.
};

// Reads a file of JSON objects, one a line. A missing file is an empty one. A torn last line (no
// newline at the end) is dropped; anything else that is not a JSON object throws FormatError with
// file and line.
JsonLines ReadJsonLines(const std::string& path);

// Makes `path` end with a whole line: cuts off what follows the last newline, atomically. Returns
// whether it had to.
bool RepairJsonLines(const std::string& path);

}  // namespace tern
