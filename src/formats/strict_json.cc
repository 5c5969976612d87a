// See strict_json.h.
#include "formats/strict_json.h"

#include <set>
#include <vector>

#include "base/error.h"

namespace tern::formats {
namespace {

constexpr int kMaxDepth = 8;               // Headers need 3
constexpr int64_t kMaxValues = 2'000'000;  // A tensor has some 12; about 300 MB at most

}  // namespace

nlohmann::json ParseStrictJson(std::string_view text, const std::string& path) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::set<std::string>> keys;  // Of the objects that are open
  int64_t values = 0;
  const auto callback = [&](int depth, Event event, nlohmann::json& parsed) {
    TERN_CHECK_FORMAT(depth <= kMaxDepth, path, ": JSON nested deeper than ", kMaxDepth, " levels");
    TERN_CHECK_FORMAT(++values <= kMaxValues, path, ": JSON of more than ", kMaxValues, " values");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key) {
      TERN_CHECK_FORMAT(keys.back().insert(parsed.get<std::string>()).second, path, ": the key ",
                        parsed.dump(), " for the second time");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, callback);
  } catch (const nlohmann::json::exception& error) {
    throw FormatError(StrCat(path, ": not valid JSON: ", error.what()));
  }
}

}  // namespace tern::formats
