// JSON of files that are not trusted: depth, number of values and duplicate keys are checked while
// parsing, so that a hostile document can neither exhaust memory nor mean two things.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tern::formats {

struct JsonLimits {
  int depth = 8;               // Headers need 3
  int64_t values = 2'000'000;  // A tensor has some 12; about 300 MB at most
};

// `path` is for messages. Throws FormatError: not valid JSON (or not UTF-8), nested deeper or with
// more keys and values than the limits say, a key twice in one object.
nlohmann::json ParseStrictJson(std::string_view text, const std::string& path,
                               const JsonLimits& limits = {});

}  // namespace tern::formats
