// See ledger.h.
#include "ptq/ledger.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <span>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "formats/strict_json.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;

using SeeTensor = std::function<void(const std::string& name, const std::string& type,
                                     std::span<const std::byte> bytes)>;

void ForEachTensor(const std::string& output, const SeeTensor& see) {
  if (fs::is_directory(output)) {
    const formats::SafetensorsReader reader(output);
    for (const auto& [name, tensor] : reader.tensors()) {
      see(name, tensor.dtype, tensor.bytes);
      reader.DropPages();
    }
    return;
  }
  const formats::GgufReader reader(output);
  for (const formats::GgufTensor& tensor : reader.tensors()) {
    see(tensor.name, std::string(formats::InfoOf(tensor.type).name), tensor.bytes);
    reader.DropPages();
  }
}

std::string HashOf(std::span<const std::byte> bytes) {
  return Sha256Hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

// Names relative to the folder; of a GGUF file "", so that it can be renamed.
std::vector<std::string> FilesOf(const std::string& output, const std::string& ledger_path) {
  if (!fs::is_directory(output)) return {""};
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(output)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && name != fs::path(ledger_path).filename().string())
      names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string PathOf(const std::string& output, const std::string& file) {
  return file.empty() ? output : StrCat(output, "/", file);
}

nlohmann::json LineOf(const std::string& output, const std::string& file) {
  const std::string path = PathOf(output, file);
  return {{"file", file}, {"size_bytes", fs::file_size(path)}, {"sha256", Sha256OfFile(path)}};
}

}  // namespace

std::string LedgerPath(const std::string& output) {
  return fs::is_directory(output) ? output + "/ledger.jsonl" : output + ".ledger.jsonl";
}

void WriteLedger(const std::string& output, const std::vector<nlohmann::json>& matrices,
                 const std::string& ledger_path) {
  std::string lines;
  for (const nlohmann::json& line : matrices) lines += line.dump() + "\n";
  ForEachTensor(output, [&](const std::string& name, const std::string& type,
                            std::span<const std::byte> bytes) {
    lines += nlohmann::json{{"stored", name}, {"type", type}, {"sha256", HashOf(bytes)}}.dump();
    lines += "\n";
  });
  for (const std::string& file : FilesOf(output, ledger_path))
    lines += LineOf(output, file).dump() + "\n";
  const std::string hash = Sha256Hex(lines);
  lines += nlohmann::json{{"ledger_sha256", hash}}.dump() + "\n";
  WriteFileAtomically(ledger_path, lines);
}

Ledger ReadLedger(const std::string& ledger_path) {
  const std::string text = ReadFile(ledger_path);
  // The last line begins behind the last line feed but one.
  const size_t end = text.ends_with('\n') ? text.size() - 1 : std::string::npos;
  const size_t before =
      end == std::string::npos || end == 0 ? std::string::npos : text.rfind('\n', end - 1);
  TERN_CHECK_FORMAT(before != std::string::npos, ledger_path,
                    " is no whole ledger; quantize again with this version");
  const std::string_view body = std::string_view(text).substr(0, before + 1);
  const nlohmann::json seal =
      formats::ParseStrictJson(text.substr(before + 1, end - before - 1), ledger_path);
  TERN_CHECK_FORMAT(seal.is_object() && seal.contains("ledger_sha256"), ledger_path,
                    " has no hash of itself in its last line; quantize again with this version");
  TERN_CHECK_FORMAT(seal.size() == 1 && seal["ledger_sha256"] == Sha256Hex(body), ledger_path,
                    " was changed after it was written: its hash is not that of its lines");
  Ledger ledger;
  for (size_t at = 0; at < body.size();) {
    const size_t stop = body.find('\n', at);
    nlohmann::json line =
        formats::ParseStrictJson(std::string(body.substr(at, stop - at)), ledger_path);
    at = stop + 1;
    auto& list = line.contains("stored") ? ledger.stored
                 : line.contains("file") ? ledger.files
                                         : ledger.matrices;
    list.push_back(std::move(line));
  }
  return ledger;
}

void CheckStored(const std::string& output, const Ledger& ledger) {
  std::map<std::string, const nlohmann::json*> lines;
  for (const nlohmann::json& line : ledger.stored)
    lines[line.at("stored").get<std::string>()] = &line;
  size_t seen = 0;
  ForEachTensor(output, [&](const std::string& name, const std::string& type,
                            std::span<const std::byte> bytes) {
    const auto line = lines.find(name);
    if (line == lines.end())
      throw NumericError(StrCat(output, ": the tensor ", name, " is none of the ledger"));
    if (line->second->at("type") != type || line->second->at("sha256") != HashOf(bytes))
      throw NumericError(StrCat(output, ": the bytes of ", name,
                                " were changed after they were written; copy or quantize again"));
    ++seen;
  });
  if (seen != lines.size())
    throw NumericError(
        StrCat(output, " has ", seen, " tensors, its ledger ", lines.size(), "; copy it again"));
}

void CheckFiles(const std::string& output, const Ledger& ledger) {
  for (const nlohmann::json& line : ledger.files) {
    const std::string file = line.at("file").get<std::string>(), path = PathOf(output, file);
    if (!fs::exists(path)) throw NumericError(StrCat(path, " is missing; the ledger lists it"));
    if (LineOf(output, file) != line)
      throw NumericError(StrCat(path, " was changed after it was written; copy or quantize again"));
  }
}

}  // namespace tern::ptq
