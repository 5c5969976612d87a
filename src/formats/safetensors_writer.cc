// SafetensorsWriter of safetensors.h.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>

#include "base/atomic_file.h"
#include "base/error.h"
#include "formats/safetensors.h"

namespace tern::formats {
namespace {

constexpr size_t kHeaderAlignment = 8;  // Data begins aligned, as the reference writer does it

std::string ShardName(size_t shard, size_t count) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, count);
  return name;
}

// Readers take model.safetensors before an index, so files of an older model would be mixed in.
void CheckNoWeights(const std::string& folder) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    TERN_CHECK_INPUT(!name.starts_with("model") || name.find(".safetensors") == std::string::npos,
                     folder, " already holds ", name, "; write into another folder or remove it");
  }
}

}  // namespace

void SafetensorsWriter::Add(const std::string& name, const std::string& dtype,
                            const std::vector<int64_t>& shape, const void* data, bool mapped) {
  const int64_t element = SafetensorsElementBytes(dtype);
  TERN_CHECK(element > 0, name, " has the dtype ", dtype);
  TERN_CHECK(!name.empty() && name != "__metadata__", "\"", name, "\" is no name of a tensor");
  for (const Tensor& tensor : tensors_) TERN_CHECK(tensor.name != name, name, " is added twice");
  int64_t size = element;
  for (const int64_t axis : shape) {
    TERN_CHECK(axis >= 0, name, " has an axis of ", axis);
    size *= axis;
  }
  tensors_.push_back({name, dtype, shape, data, element, size, mapped});
}

std::string SafetensorsWriter::HeaderOf(Tensors* tensors) {
  std::stable_sort(tensors->begin(), tensors->end(), [](const Tensor* a, const Tensor* b) {
    return a->element_bytes > b->element_bytes;
  });
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t offset = 0;
  for (const Tensor* tensor : *tensors) {
    header[tensor->name] = {{"dtype", tensor->dtype},
                            {"shape", tensor->shape},
                            {"data_offsets", {offset, offset + tensor->size_bytes}}};
    offset += tensor->size_bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  return text;
}

void SafetensorsWriter::WriteFile(Tensors tensors, const std::string& path) {
  const std::string text = HeaderOf(&tensors);
  const uint64_t size = text.size();
  AtomicFile file(path);
  file.Write(&size, sizeof size);
  file.Write(text.data(), text.size());
  for (const Tensor* tensor : tensors) {
    const std::span<const std::byte> bytes(static_cast<const std::byte*>(tensor->data),
                                           static_cast<size_t>(tensor->size_bytes));
    if (!tensor->mapped) file.Write(bytes.data(), bytes.size());
    for (size_t at = 0; tensor->mapped && at < bytes.size(); at += kMappedPiece) {
      const auto piece = bytes.subspan(at, std::min<size_t>(kMappedPiece, bytes.size() - at));
      file.Write(piece.data(), piece.size());
      DropMappedPages(piece);
    }
  }
  file.Commit();
}

void SafetensorsWriter::Write(const std::string& path) const {
  Tensors all;
  for (const Tensor& tensor : tensors_) all.push_back(&tensor);
  WriteFile(std::move(all), path);
}

std::vector<SafetensorsWriter::Tensors> SafetensorsWriter::Shards(int64_t max_shard_bytes) const {
  TERN_CHECK(max_shard_bytes > 0, max_shard_bytes);
  std::vector<Tensors> shards(1);
  int64_t in_shard = 0;
  for (const Tensor& tensor : tensors_) {
    if (!shards.back().empty() && in_shard + tensor.size_bytes > max_shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(&tensor);
    in_shard += tensor.size_bytes;
  }
  return shards;
}

int64_t SafetensorsWriter::FolderBytes(int64_t max_shard_bytes) const {
  int64_t bytes = 0;
  for (Tensors& shard : Shards(max_shard_bytes))
    bytes += static_cast<int64_t>(sizeof(uint64_t) + HeaderOf(&shard).size());
  for (const Tensor& tensor : tensors_) bytes += tensor.size_bytes;
  return bytes;
}

void SafetensorsWriter::WriteFolder(const std::string& folder, int64_t max_shard_bytes) const {
  CheckNoWeights(folder);
  const std::vector<Tensors> shards = Shards(max_shard_bytes);
  int64_t total = 0;
  for (const Tensor& tensor : tensors_) total += tensor.size_bytes;
  if (shards.size() == 1) {
    WriteFile(shards[0], folder + "/model.safetensors");
    return;
  }
  nlohmann::json weight_map;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = ShardName(i, shards.size());
    for (const Tensor* tensor : shards[i]) weight_map[tensor->name] = name;
    WriteFile(shards[i], folder + "/" + name);
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  WriteFileAtomically(folder + "/model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace tern::formats
