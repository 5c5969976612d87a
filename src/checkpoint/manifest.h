// manifest.json of a checkpoint: which files it consists of, their sizes and SHA-256, and what it
// may be chosen by. It is written last, so its presence says that the files before it were whole;
// it ends with the SHA-256 of itself, so any changed byte is found. Reading is strict: the bytes
// must be exactly those that this writer makes of the content.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tern::checkpoint {

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr char kStateName[] = "state.h5";

struct ManifestFile {
  std::string name;  // Plain file name in the checkpoint's folder.
  int64_t size_bytes = 0;
  std::string sha256;
};

struct Manifest {
  int64_t step = 0;
  std::string kind;
  std::map<std::string, double> metrics;  // Finite.
  std::vector<ManifestFile> files;        // state.h5 is one of them.
};

std::string SerializeManifest(const Manifest& manifest);
// `path` is for messages. Throws FormatError: not JSON, damaged, of another format version, a step
// or name out of bounds.
Manifest ParseManifest(std::string_view text, const std::string& path);
// Reads and parses folder/manifest.json. Throws FormatError when it is missing (the checkpoint was
// never finished).
Manifest ReadManifest(const std::string& folder);

// Throws FormatError that names the first file of `manifest` that is missing or has another size in
// `folder`.
void CheckSizes(const Manifest& manifest, const std::string& folder);
// As CheckSizes, then compares every file's SHA-256.
void CheckContents(const Manifest& manifest, const std::string& folder);

}  // namespace tern::checkpoint
