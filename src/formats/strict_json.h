// JSON of files that are not trusted: depth, number of values and duplicate keys are checked while
// parsing, so that a hostile document can neither exhaust memory nor mean two things.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tern::formats {

// `path` is for messages. Throws FormatError: not valid JSON (or not UTF-8), deeper than 8 levels,
// more than two million keys and values, a key twice in one object.
nlohmann::json ParseStrictJson(std::string_view text, const std::string& path);

}  // namespace tern::formats
