// SafetensorsReader of safetensors.h.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/utf8.h"
#include "formats/safetensors.h"
#include "formats/strict_json.h"

namespace tern::formats {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // The reference reader's limit
constexpr int64_t kMaxElements = int64_t{1} << 50;
constexpr size_t kMaxShards = 10'000;
constexpr const char* kMetadata = "__metadata__";
constexpr const char* kFileName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

struct Dtype {
  const char* word;
  int64_t bytes;
};
constexpr Dtype kDtypes[] = {{"F64", 8},     {"F32", 4},     {"F16", 2},     {"BF16", 2},
                             {"I64", 8},     {"I32", 4},     {"I16", 2},     {"I8", 1},
                             {"U64", 8},     {"U32", 4},     {"U16", 2},     {"U8", 1},
                             {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}, {"BOOL", 1}};

struct Entry {
  std::string name;
  SafetensorsTensor tensor;
  uint64_t begin = 0, end = 0;
};

// A name with a control character stands for nothing but trouble: a NUL ends it for every function
// of C that it is given to.
void CheckName(const std::string& name, const std::string& where, const char* what) {
  const std::string shown = EscapeControls(name);
  TERN_CHECK_FORMAT(shown == name, where, ": ", what, " \"", shown,
                    "\" has a control character; want a name without");
}

// A shape's element count, checked against overflow.
int64_t Elements(const std::vector<int64_t>& shape, const std::string& where) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    TERN_CHECK_FORMAT(size >= 0, where, " has an axis of ", size);
    TERN_CHECK_FORMAT(size == 0 || count <= kMaxElements / size, where, " is impossibly large");
    count *= size;
  }
  return count;
}

uint64_t Whole(const json& value, const std::string& where) {
  TERN_CHECK_FORMAT(value.is_number_unsigned(), where,
                    ": shape and data_offsets want whole numbers from 0 on");
  const uint64_t number = value.get<uint64_t>();
  TERN_CHECK_FORMAT(number <= static_cast<uint64_t>(INT64_MAX), where, " has the number ", number);
  return number;
}

const json& Field(const json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  TERN_CHECK_FORMAT(found != object.end(), where, " has no ", key);
  return *found;
}

Entry ReadEntry(const std::string& name, const json& object, const std::string& where,
                std::span<const std::byte> data) {
  TERN_CHECK_FORMAT(object.is_object(), where, " is not described by an object");
  const json& dtype = Field(object, "dtype", where);
  const json& shape = Field(object, "shape", where);
  const json& offsets = Field(object, "data_offsets", where);
  TERN_CHECK_FORMAT(
      dtype.is_string() && shape.is_array() && offsets.is_array() && offsets.size() == 2, where,
      " wants a dtype word, a list as shape and two data_offsets");
  Entry entry;
  entry.name = name;
  entry.tensor.dtype = dtype.get<std::string>();
  for (const json& size : shape) {
    entry.tensor.shape.push_back(static_cast<int64_t>(Whole(size, where)));
  }
  entry.begin = Whole(offsets[0], where);
  entry.end = Whole(offsets[1], where);
  const int64_t element = SafetensorsElementBytes(entry.tensor.dtype);
  TERN_CHECK_FORMAT(element > 0, where, " has the dtype ", EscapeControls(entry.tensor.dtype),
                    ", which this version does not know");
  TERN_CHECK_FORMAT(entry.begin <= entry.end && entry.end <= data.size(), where, " lies at bytes ",
                    entry.begin, " to ", entry.end, " of a data part of ", data.size());
  const int64_t want = Elements(entry.tensor.shape, where) * element;
  TERN_CHECK_FORMAT(static_cast<int64_t>(entry.end - entry.begin) == want, where, " has ",
                    entry.end - entry.begin, " bytes; its shape and dtype want ", want);
  entry.tensor.bytes = data.subspan(entry.begin, entry.end - entry.begin);
  return entry;
}

// The tensors must cover the data part, each byte once: so the format has it.
void CheckCover(const std::vector<Entry>& entries, uint64_t size, const std::string& path) {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const Entry& entry : entries) ranges.emplace_back(entry.begin, entry.end);
  std::sort(ranges.begin(), ranges.end());
  uint64_t at = 0;
  for (const auto& [begin, end] : ranges) {
    TERN_CHECK_FORMAT(begin >= at, path, ": two tensors overlap at byte ", begin, " of the data");
    TERN_CHECK_FORMAT(begin == at, path, ": bytes ", at, " to ", begin, " belong to no tensor");
    at = end;
  }
  TERN_CHECK_FORMAT(at == size, path, ": bytes ", at, " to ", size, " belong to no tensor");
}

// Name of a tensor -> name of its shard.
std::map<std::string, std::string> ReadWeightMap(const std::string& index) {
  const std::string text = ReadFile(index);
  TERN_CHECK_FORMAT(text.size() <= kMaxHeaderBytes, index, ": an index of ", text.size(), " bytes");
  const json document = ParseStrictJson(text, index);
  TERN_CHECK_FORMAT(document.is_object(), index, ": not an object");
  const json& entries = Field(document, "weight_map", index);
  TERN_CHECK_FORMAT(entries.is_object(), index, ": weight_map is not an object");
  std::map<std::string, std::string> map;
  for (const auto& [name, shard] : entries.items()) {
    CheckName(name, index, "the tensor");
    TERN_CHECK_FORMAT(shard.is_string(), index, ": the shard of ", name, " is not a file name");
    const std::string file = shard.get<std::string>();
    CheckName(file, StrCat(index, ": the shard of ", name), "the file");
    const bool plain = file.ends_with(".safetensors") && file.find('/') == std::string::npos;
    TERN_CHECK_FORMAT(plain, index, ": the shard of ", name, " is \"", file,
                      "\"; want the name of a .safetensors file in the same folder");
    map.emplace(name, file);
  }
  return map;
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
  std::error_code ignored;  // A path that cannot be looked at is refused when it is opened
  if (fs::is_directory(path, ignored)) {
    file = (fs::path(path) / kFileName).string();
    if (!fs::exists(file, ignored)) file = (fs::path(path) / kIndexName).string();
    TERN_CHECK_INPUT(fs::exists(file, ignored), path, " holds neither ", kFileName, " nor ",
                     kIndexName);
  }
  file.ends_with(".json") ? AddIndex(file) : AddFile(file);
}

void SafetensorsReader::AddIndex(const std::string& index) {
  const auto map = ReadWeightMap(index);
  std::map<std::string, size_t> shards;  // With the number of tensors the index gives each
  for (const auto& [name, shard] : map) ++shards[shard];
  TERN_CHECK_FORMAT(shards.size() <= kMaxShards, index, ": ", shards.size(), " shards");
  for (const auto& [shard, count] : shards) {
    const size_t before = tensors_.size();
    AddFile((fs::path(index).parent_path() / shard).string());
    // With each name found below in its shard, equal counts say that no tensor is left out.
    TERN_CHECK_FORMAT(tensors_.size() - before == count, index, ": ", shard, " holds ",
                      tensors_.size() - before, " tensors, the index gives it ", count);
    for (const auto& [name, of] : map) {
      TERN_CHECK_FORMAT(of != shard || tensors_.contains(name), index, ": ", name, " is not in ",
                        shard);
    }
  }
}

void SafetensorsReader::AddFile(const std::string& file) {
  const auto bytes = files_->emplace_back(file).bytes();
  uint64_t header = 0;
  TERN_CHECK_FORMAT(bytes.size() >= sizeof header, file, ": ", bytes.size(),
                    " bytes are no safetensors file");
  std::memcpy(&header, bytes.data(), sizeof header);
  TERN_CHECK_FORMAT(header <= kMaxHeaderBytes && header <= bytes.size() - sizeof header, file,
                    ": a header of ", header, " bytes in a file of ", bytes.size(),
                    "; it is cut short or not a safetensors file");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof header, header);
  TERN_CHECK_FORMAT(text.starts_with('{'), file, ": the header is not a JSON object");
  const json document = ParseStrictJson(text, file);
  const auto data = bytes.subspan(sizeof header + header);
  std::vector<Entry> entries;
  for (const auto& [name, value] : document.items()) {
    CheckName(name, file, "the tensor");
    if (name != kMetadata) {
      entries.push_back(ReadEntry(name, value, StrCat(file, ": tensor ", name), data));
      continue;
    }
    TERN_CHECK_FORMAT(value.is_object(), file, ": ", kMetadata, " is not an object");
    for (const auto& [key, text_value] : value.items()) {
      TERN_CHECK_FORMAT(text_value.is_string(), file, ": ", kMetadata, ".", EscapeControls(key),
                        " is not a text");
      metadata_.emplace(key, text_value.get<std::string>());
    }
  }
  CheckCover(entries, data.size(), file);
  for (const Entry& entry : entries) {
    TERN_CHECK_FORMAT(tensors_.emplace(entry.name, entry.tensor).second, file, ": ", entry.name,
                      " is in two shards");
  }
}

const SafetensorsTensor& SafetensorsReader::Get(const std::string& name) const {
  const auto found = tensors_.find(name);
  TERN_CHECK_FORMAT(found != tensors_.end(), path_, ": the tensor ", name, " is missing");
  return found->second;
}

void SafetensorsReader::DropPages() const {
  for (const MappedFile& file : *files_) DropMappedPages(file.bytes());
}

int64_t SafetensorsReader::size_bytes() const {
  int64_t size = 0;
  for (const MappedFile& file : *files_) size += static_cast<int64_t>(file.bytes().size());
  return size;
}

}  // namespace tern::formats
