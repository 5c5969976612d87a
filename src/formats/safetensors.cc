// See safetensors.h.
#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/atomic_file.h"
#include "base/error.h"

namespace tern::formats {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;   // The reference reader's limit
constexpr int kMaxJsonDepth = 8;                    // The format needs 3
constexpr int64_t kMaxShards = 10'000;

struct Dtype {
  const char* word;
  int64_t bytes;
};
constexpr Dtype kDtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},     {"I32", 4},
                             {"I16", 2}, {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

// Parses JSON that may be hostile: depth limited, no duplicate keys in one object, everything else an exception of ours.
nlohmann::json ParseJson(std::string_view text, const std::string& path) {
  std::vector<std::set<std::string>> keys;
  const auto callback = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth > kMaxJsonDepth) throw FormatError(StrCat(path, ": JSON nested deeper than ", kMaxJsonDepth, " levels"));
    if (event == nlohmann::json::parse_event_t::object_start) keys.emplace_back();
    if (event == nlohmann::json::parse_event_t::object_end) keys.pop_back();
    if (event == nlohmann::json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw FormatError(StrCat(path, ": the key ", parsed.dump(), " for the second time"));
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, callback);
  } catch (const nlohmann::json::exception& error) {
    throw FormatError(StrCat(path, ": not valid JSON: ", error.what()));
  }
}

// A shape's element count, checked against overflow.
int64_t Elements(const std::vector<int64_t>& shape, const std::string& where) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    TERN_CHECK_FORMAT(size >= 0, where, " has a negative axis");
    TERN_CHECK_FORMAT(size == 0 || count <= (int64_t{1} << 50) / size, where, " is impossibly large");
    count *= size;
  }
  return count;
}

struct Entry {
  SafetensorsTensor tensor;
  uint64_t begin = 0, end = 0;
};

Entry ReadEntry(const nlohmann::json& json, const std::string& where, std::span<const std::byte> data) {
  Entry entry;
  try {
    entry.tensor.dtype = json.at("dtype").get<std::string>();
    for (const auto& size : json.at("shape")) {
      TERN_CHECK_FORMAT(size.is_number_integer(), where, ": a shape of whole numbers is wanted");
      entry.tensor.shape.push_back(size.get<int64_t>());
    }
    const auto& offsets = json.at("data_offsets");
    TERN_CHECK_FORMAT(offsets.size() == 2 && offsets[0].is_number_unsigned() && offsets[1].is_number_unsigned(), where,
                      ": two data_offsets are wanted");
    entry.begin = offsets[0].get<uint64_t>();
    entry.end = offsets[1].get<uint64_t>();
  } catch (const nlohmann::json::exception& error) {
    throw FormatError(StrCat(where, ": ", error.what()));
  }
  const int64_t element = SafetensorsElementBytes(entry.tensor.dtype);
  TERN_CHECK_FORMAT(element > 0, where, " has the dtype ", entry.tensor.dtype, ", which this version does not know");
  TERN_CHECK_FORMAT(entry.begin <= entry.end && entry.end <= data.size(), where, " lies at bytes ", entry.begin, " to ",
                    entry.end, " of a data part of ", data.size());
  const int64_t want = Elements(entry.tensor.shape, where) * element;
  TERN_CHECK_FORMAT(static_cast<int64_t>(entry.end - entry.begin) == want, where, " has ", entry.end - entry.begin,
                    " bytes; its shape and dtype want ", want);
  entry.tensor.bytes = data.subspan(entry.begin, entry.end - entry.begin);
  return entry;
}

void CheckNoOverlap(std::vector<std::pair<uint64_t, uint64_t>> ranges, const std::string& path) {
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    TERN_CHECK_FORMAT(ranges[i].first >= ranges[i - 1].second, path, ": two tensors overlap at byte ", ranges[i].first);
  }
}

}  // namespace

int64_t SafetensorsElementBytes(const std::string& dtype) {
  for (const Dtype& entry : kDtypes) {
    if (dtype == entry.word) return entry.bytes;
  }
  return 0;
}

SafetensorsReader::SafetensorsReader(const std::string& path) : path_(path) {
  std::string file = path;
  if (fs::is_directory(path)) {
    file = path + "/model.safetensors";
    if (!fs::exists(file)) file = path + "/model.safetensors.index.json";
  }
  if (!file.ends_with(".json")) {
    AddFile(file);
    return;
  }
  const nlohmann::json index = ParseJson(ReadFile(file), file);
  TERN_CHECK_FORMAT(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(), file,
                    ": the object weight_map is missing");
  std::set<std::string> shards;
  for (const auto& [name, shard] : index["weight_map"].items()) {
    const bool plain = shard.is_string() && shard.get<std::string>().find('/') == std::string::npos;
    TERN_CHECK_FORMAT(plain, file, ": the shard of ", name, " is not a file name");
    shards.insert(shard.get<std::string>());
  }
  TERN_CHECK_FORMAT(static_cast<int64_t>(shards.size()) <= kMaxShards, file, ": ", shards.size(), " shards");
  for (const std::string& shard : shards) AddFile((fs::path(file).parent_path() / shard).string());
  for (const auto& [name, shard] : index["weight_map"].items()) {
    TERN_CHECK_FORMAT(tensors_.contains(name), file, ": ", name, " is not in its shard ", shard.dump());
  }
}

void SafetensorsReader::AddFile(const std::string& file) {
  const MappedFile& mapped = files_.emplace_back(file);
  const auto bytes = mapped.bytes();
  uint64_t header = 0;
  TERN_CHECK_FORMAT(bytes.size() >= sizeof header, file, ": ", bytes.size(), " bytes are no safetensors file");
  std::memcpy(&header, bytes.data(), sizeof header);
  TERN_CHECK_FORMAT(header <= kMaxHeaderBytes && header <= bytes.size() - sizeof header, file, ": a header of ", header,
                    " bytes in a file of ", bytes.size(), "; it is torn or not a safetensors file");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof header, header);
  const nlohmann::json json = ParseJson(text, file);
  TERN_CHECK_FORMAT(json.is_object(), file, ": the header is not an object");
  const auto data = bytes.subspan(sizeof header + header);
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") continue;
    const Entry entry = ReadEntry(value, StrCat(file, ": tensor ", name), data);
    if (entry.begin != entry.end) ranges.emplace_back(entry.begin, entry.end);
    TERN_CHECK_FORMAT(tensors_.emplace(name, entry.tensor).second, file, ": ", name, " is in two shards");
  }
  CheckNoOverlap(std::move(ranges), file);
}

const SafetensorsTensor& SafetensorsReader::Get(const std::string& name) const {
  const auto found = tensors_.find(name);
  TERN_CHECK_FORMAT(found != tensors_.end(), path_, ": the tensor ", name, " is missing");
  return found->second;
}

void SafetensorsWriter::Add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
                            const void* data) {
  const int64_t element = SafetensorsElementBytes(dtype);
  TERN_CHECK(element > 0, dtype);
  tensors_.push_back({name, dtype, shape, data, Elements(shape, name) * element});
}

void SafetensorsWriter::Write(const std::string& path) const {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.size_bytes}}};
    offset += tensor.size_bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');   // Data begins aligned to 8 bytes, as the reference writer does it
  const uint64_t size = text.size();
  AtomicFile file(path);
  file.Write(&size, sizeof size);
  file.Write(text.data(), text.size());
  for (const Tensor& tensor : tensors_) file.Write(tensor.data, static_cast<size_t>(tensor.size_bytes));
  file.Commit();
}

}  // namespace tern::formats
