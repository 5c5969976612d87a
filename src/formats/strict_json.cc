// See strict_json.h.
#include "formats/strict_json.h"

#include <unordered_set>
#include <vector>

#include "base/error.h"

namespace tern::formats {

nlohmann::json ParseStrictJson(std::string_view text, const std::string& path,
                               const JsonLimits& limits) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::unordered_set<std::string>> keys;  // Of the objects that are open
  int64_t values = 0;
  const auto callback = [&](int depth, Event event, nlohmann::json& parsed) {
    TERN_CHECK_FORMAT(depth <= limits.depth, path, ": JSON nested deeper than ", limits.depth,
                      " levels");
    TERN_CHECK_FORMAT(++values <= limits.values, path, ": JSON of more than ", limits.values,
                      " values");
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
