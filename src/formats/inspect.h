// What is in a GGUF or safetensors file (or in a folder with safetensors), for `tern inspect`: a
// JSON description for machines and the same as text for people. Reads headers only, never weights.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace tern::formats {

struct InspectOptions {
  size_t max_items = 4;  // Of arrays in the metadata (vocabularies have many thousand items)
};

// {"kind": "GGUF" | "safetensors", "path", "bytes", "metadata" (of a folder: its config.json),
// "tensors": [{"name", "type", "shape" (row-major), "bytes"}...] (GGUF: in the file's order),
// "types": {type: {"tensors", "elements", "bytes"}}, "elements"}. A file that begins with "GGUF" is
// taken as one, anything else as safetensors. Throws what the readers throw. All text is valid
// UTF-8 (other bytes become U+FFFD).
nlohmann::json Inspect(const std::string& path, const InspectOptions& options = {});

// The description for people, lines of at most some 100 characters, ends with a newline.
std::string InspectText(const nlohmann::json& description);

}  // namespace tern::formats
