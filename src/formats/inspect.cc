// See inspect.h.
#include "formats/inspect.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/progress.h"
#include "base/utf8.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "formats/strict_json.h"

namespace tern::formats {
namespace {

using nlohmann::json;
constexpr size_t kMaxTextInMetadata = 200;  // Characters of a value shown to people

bool BeginsWithGguf(const std::string& path) {
  std::array<char, 4> magic{};
  std::ifstream file(path, std::ios::binary);
  return file.read(magic.data(), magic.size()) && std::string_view(magic.data(), 4) == "GGUF";
}

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

// Adds a tensor to the list and to the sums.
void AddTensor(const std::string& name, std::string_view type, const std::vector<int64_t>& shape,
               size_t size_bytes, json* description) {
  (*description)["tensors"].push_back(
      {{"name", name}, {"type", type}, {"shape", shape}, {"bytes", size_bytes}});
  json& sum = (*description)["types"][std::string(type)];
  if (sum.is_null()) sum = {{"tensors", 0}, {"elements", 0}, {"bytes", 0}};
  sum["tensors"] = sum["tensors"].get<int64_t>() + 1;
  sum["elements"] = sum["elements"].get<int64_t>() + Elements(shape);
  sum["bytes"] = sum["bytes"].get<size_t>() + size_bytes;
  json& elements = (*description)["elements"];
  elements = elements.get<int64_t>() + Elements(shape);
}

json Empty(const std::string& path, const char* kind, int64_t size_bytes) {
  return {{"kind", kind},
          {"path", path},
          {"bytes", size_bytes},
          {"metadata", json::object()},
          {"tensors", json::array()},
          {"types", json::object()},
          {"elements", int64_t{0}}};
}

// A line for a terminal, which names and values of a file neither steer nor break.
std::string Line(const std::string& text) { return EscapeControls(text) + "\n"; }

std::string ShapeText(const json& shape) {
  std::string text;
  for (const json& size : shape) {
    text += StrCat(text.empty() ? "" : ", ", size.get<int64_t>());
  }
  return StrCat("[", text, "]");
}

std::string ValueText(const json& value) {
  // An array of GGUF metadata; a config.json may hold objects that look like one.
  if (value.is_object() && value.size() == 2 && value.contains("items") &&
      value.contains("first") && value["items"].is_number_integer()) {
    return StrCat(value["items"].get<int64_t>(), " items: ", value["first"].dump());
  }
  const std::string text = value.dump();
  if (text.size() <= kMaxTextInMetadata) return text;
  return StrCat(value.dump(-1, ' ', true).substr(0, kMaxTextInMetadata), "...");
}

}  // namespace

json Inspect(const std::string& path, const InspectOptions& options) {
  json description;
  std::error_code ignored;  // What cannot be looked at, the reader refuses with its reason
  if (!std::filesystem::is_directory(path, ignored) && BeginsWithGguf(path)) {
    const GgufReader file(path);
    description = Empty(path, "GGUF", static_cast<int64_t>(std::filesystem::file_size(path)));
    description["metadata"] = file.Metadata(options.max_items);
    for (const GgufTensor& t : file.tensors()) {
      AddTensor(t.name, InfoOf(t.type).name, t.shape, t.bytes.size(), &description);
    }
  } else {
    const SafetensorsReader file(path);
    description = Empty(path, "safetensors", file.size_bytes());
    description["metadata"] = file.metadata();
    const std::string config = path + "/config.json";
    if (std::filesystem::exists(config, ignored)) {
      description["metadata"] = ParseStrictJson(ReadFile(config), config);
    }
    for (const auto& [name, t] : file.tensors()) {
      AddTensor(name, t.dtype, t.shape, t.bytes.size(), &description);
    }
  }
  // Through text and back: bytes that are no UTF-8 become U+FFFD, so that any later dump works.
  return json::parse(description.dump(-1, ' ', false, json::error_handler_t::replace));
}

std::string InspectText(const json& description) {
  std::string text = Line(
      StrCat(description["path"].get<std::string>(), ": ", description["kind"].get<std::string>(),
             ", ", FormatBytes(static_cast<double>(description["bytes"].get<int64_t>())), ", ",
             description["tensors"].size(), " tensors, ",
             FormatSi(static_cast<double>(description["elements"].get<int64_t>())), " elements"));
  for (const auto& [type, sum] : description["types"].items()) {
    const double size = static_cast<double>(sum["bytes"].get<int64_t>());
    const double elements = static_cast<double>(sum["elements"].get<int64_t>());
    char line[160];
    std::snprintf(line, sizeof line, "  %-8s %6lld tensors  %10s elements  %10s  %.4g bits each\n",
                  type.c_str(), static_cast<long long>(sum["tensors"].get<int64_t>()),
                  FormatSi(elements).c_str(), FormatBytes(size).c_str(),
                  elements > 0 ? 8 * size / elements : 0.0);
    text += line;
  }
  text += "metadata\n";
  for (const auto& [key, value] : description["metadata"].items()) {
    text += Line(StrCat("  ", key, " = ", ValueText(value)));
  }
  text += "tensors\n";
  for (const json& tensor : description["tensors"]) {
    text += Line(StrCat("  ", tensor["name"].get<std::string>(), " ",
                        tensor["type"].get<std::string>(), " ", ShapeText(tensor["shape"])));
  }
  return text;
}

}  // namespace tern::formats
