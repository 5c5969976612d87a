// See manifest.h.
#include "checkpoint/manifest.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/checkpoint.h"

namespace tern::checkpoint {
namespace {

constexpr char kFormatName[] = "tern.checkpoint";
constexpr uintmax_t kMaxManifestBytes =
    1 << 20;  // Ours are under 1 KiB: a larger one is not read at all.
constexpr char kRemedy[] = "; use an older checkpoint of the run, or copy this one again";

// The manifest without its own hash.
nlohmann::ordered_json Body(const Manifest& manifest) {
  nlohmann::ordered_json body = {{"format", kFormatName},
                                 {"version", kFormatVersion},
                                 {"step", manifest.step},
                                 {"kind", manifest.kind},
                                 {"metrics", nlohmann::ordered_json::object()},
                                 {"files", nlohmann::ordered_json::array()}};
  for (const auto& [name, value] : manifest.metrics) body["metrics"][name] = value;
  for (const ManifestFile& file : manifest.files) {
    body["files"].push_back(
        {{"name", file.name}, {"size_bytes", file.size_bytes}, {"sha256", file.sha256}});
  }
  return body;
}

// A member of `object`, or FormatError.
template <class T>
T Member(const nlohmann::json& object, const char* key, const std::string& path) {
  const auto found = object.find(key);
  bool right = found != object.end();
  if constexpr (std::is_same_v<T, int64_t>) right = right && found->is_number_integer();
  if constexpr (std::is_same_v<T, std::string>) right = right && found->is_string();
  TERN_CHECK_FORMAT(right, path, ": \"", key, "\" is missing or of another type", kRemedy);
  return found->template get<T>();
}

ManifestFile ParseFile(const nlohmann::json& entry, const std::string& path) {
  TERN_CHECK_FORMAT(entry.is_object(), path, ": want an object for each file", kRemedy);
  ManifestFile file{Member<std::string>(entry, "name", path),
                    Member<int64_t>(entry, "size_bytes", path),
                    Member<std::string>(entry, "sha256", path)};
  const bool plain = !file.name.empty() && file.name[0] != '.' &&
                     file.name.find('/') == std::string::npos &&
                     file.name.find('\0') == std::string::npos;
  TERN_CHECK_FORMAT(plain, path, ": file name \"", file.name, "\" is not a plain name", kRemedy);
  return file;
}

Manifest ParseBody(const nlohmann::json& body, const std::string& path) {
  Manifest manifest;
  manifest.step = Member<int64_t>(body, "step", path);
  TERN_CHECK_FORMAT(manifest.step >= 0, path, ": step ", manifest.step, ", want 0 or more",
                    kRemedy);
  manifest.kind = Member<std::string>(body, "kind", path);
  const auto metrics = body.find("metrics");
  TERN_CHECK_FORMAT(metrics != body.end() && metrics->is_object(), path, ": no object \"metrics\"",
                    kRemedy);
  for (const auto& [name, value] : metrics->items()) {
    TERN_CHECK_FORMAT(value.is_number(), path, ": metric \"", name, "\" is not a number", kRemedy);
    manifest.metrics[name] = value.get<double>();
  }
  const auto files = body.find("files");
  TERN_CHECK_FORMAT(files != body.end() && files->is_array(), path, ": no list \"files\"", kRemedy);
  bool has_state = false;
  for (const nlohmann::json& entry : *files) {
    manifest.files.push_back(ParseFile(entry, path));
    has_state = has_state || manifest.files.back().name == kStateName;
  }
  TERN_CHECK_FORMAT(has_state, path, ": lists no ", kStateName, kRemedy);
  return manifest;
}

}  // namespace

std::string SerializeManifest(const Manifest& manifest) {
  nlohmann::ordered_json body = Body(manifest);
  body["manifest_sha256"] = Sha256Hex(body.dump(2));
  return body.dump(2) + "\n";
}

Manifest ParseManifest(std::string_view text, const std::string& path) {
  const auto body = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  TERN_CHECK_FORMAT(body.is_object(), path, ": not a JSON object (", text.size(),
                    " bytes): truncated or damaged", kRemedy);
  const auto format = Member<std::string>(body, "format", path);
  TERN_CHECK_FORMAT(format == kFormatName, path, ": format \"", format, "\", want \"", kFormatName,
                    "\"");
  const auto version = Member<int64_t>(body, "version", path);
  TERN_CHECK_FORMAT(version == kFormatVersion, path, ": checkpoint format version ", version,
                    ", this tern reads ", kFormatVersion,
                    "; open it with the release that wrote it");
  const Manifest manifest = ParseBody(body, path);
  TERN_CHECK_FORMAT(SerializeManifest(manifest) == text, path,
                    ": its own checksum does not hold: damaged or edited", kRemedy);
  return manifest;
}

Manifest ReadManifest(const std::string& folder) {
  const std::string path = folder + "/" + kManifestName;
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  TERN_CHECK_FORMAT(!error, "checkpoint ", folder, " has no ", kManifestName,
                    ": it was never finished", kRemedy);
  TERN_CHECK_FORMAT(size <= kMaxManifestBytes, path, ": ", size, " bytes, want at most ",
                    kMaxManifestBytes, kRemedy);
  return ParseManifest(ReadFile(path), path);
}

void CheckSizes(const Manifest& manifest, const std::string& folder) {
  for (const ManifestFile& file : manifest.files) {
    const std::string path = folder + "/" + file.name;
    std::error_code error;
    const uintmax_t size = std::filesystem::file_size(path, error);
    TERN_CHECK_FORMAT(!error, path, " is missing, but ", kManifestName, " lists it", kRemedy);
    TERN_CHECK_FORMAT(size == static_cast<uintmax_t>(file.size_bytes), path, ": ", size,
                      " bytes, want ", file.size_bytes, kRemedy);
  }
}

void CheckContents(const Manifest& manifest, const std::string& folder) {
  CheckSizes(manifest, folder);
  for (const ManifestFile& file : manifest.files) {
    const std::string path = folder + "/" + file.name;
    const std::string sha256 = Sha256OfFile(path);
    TERN_CHECK_FORMAT(sha256 == file.sha256, path, ": SHA-256 ", sha256, ", want ", file.sha256,
                      ": its bytes were changed", kRemedy);
  }
}

}  // namespace tern::checkpoint
