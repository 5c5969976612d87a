// Reads golden/golden.json (bytes that the reference programs wrote; see golden/generate.py) and
// turns its hexadecimal text into numbers. No Python is needed to run the tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"

namespace tern::formats::testing {

inline nlohmann::json Golden() {
  return nlohmann::json::parse(ReadFile(TERN_SOURCE_DIR "/tests/formats/golden/golden.json"));
}

inline std::vector<uint8_t> FromHex(const std::string& hex) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

inline std::vector<float> FloatsFromHex(const std::string& hex) {
  const std::vector<uint8_t> bytes = FromHex(hex);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace tern::formats::testing
