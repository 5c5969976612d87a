// A Hugging Face folder whose tensors are given byte by byte, so that a test can write what no
// writer of tern does.
#pragma once

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "formats/safetensors.h"

namespace tern::testing {

struct RawTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
};

template <class T>
RawTensor MakeRaw(const std::string& dtype, const std::vector<int64_t>& shape,
                  const std::vector<T>& values) {
  RawTensor tensor{dtype, shape, std::vector<uint8_t>(values.size() * sizeof(T))};
  if (!values.empty()) std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

struct RawFolder {
  nlohmann::json config;
  std::map<std::string, RawTensor> tensors;

  // max_shard_bytes: beyond it, several files and their index.
  void Write(const std::string& folder, int64_t max_shard_bytes = 1 << 30) const {
    MakeFolders(folder);
    WriteFileAtomically(folder + "/config.json", config.dump(2));
    formats::SafetensorsWriter writer;
    for (const auto& [name, tensor] : tensors)
      writer.Add(name, tensor.dtype, tensor.shape, tensor.bytes.data());
    writer.WriteFolder(folder, max_shard_bytes);
  }
};

}  // namespace tern::testing
