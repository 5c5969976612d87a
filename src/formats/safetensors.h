// safetensors (docs/formats/safetensors.md): a JSON header of names, dtypes, shapes and offsets, then raw tensors. Read by
// mapping, one file or the shards of a model.safetensors.index.json; every offset is checked. Written whole, atomically.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"

namespace tern::formats {

// dtype words as the format has them: "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3".
// Bytes of an element; 0 for an unknown word.
int64_t SafetensorsElementBytes(const std::string& dtype);

struct SafetensorsTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;   // In the mapping; lives as long as the reader
};

class SafetensorsReader {
 public:
  // A .safetensors file, an index .json, or a folder that holds model.safetensors or its index. Throws InputError when it
  // is not there, FormatError (file, tensor, byte range) when it cannot be trusted.
  explicit SafetensorsReader(const std::string& path);

  const std::map<std::string, SafetensorsTensor>& tensors() const { return tensors_; }
  // Throws FormatError when absent.
  const SafetensorsTensor& Get(const std::string& name) const;
  const std::string& path() const { return path_; }

 private:
  void AddFile(const std::string& file);

  std::string path_;
  std::vector<MappedFile> files_;
  std::map<std::string, SafetensorsTensor> tensors_;
};

class SafetensorsWriter {
 public:
  // The data must live until Write.
  void Add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape, const void* data);
  void Write(const std::string& path) const;

 private:
  struct Tensor {
    std::string name, dtype;
    std::vector<int64_t> shape;
    const void* data;
    int64_t size_bytes;
  };
  std::vector<Tensor> tensors_;
};

}  // namespace tern::formats
