// safetensors (docs/formats/safetensors.md): a JSON header of names, dtypes, shapes and offsets,
// then raw tensors. Read by mapping, one file or the shards of a model.safetensors.index.json; as
// strict as the reference reader (no overlaps, no holes). Written atomically, one file or shards.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"

namespace tern::formats {

// dtype words as the format has them: "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8",
// "U64", "U32", "U16", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0". Bytes of an element; 0 for an
// unknown word.
int64_t SafetensorsElementBytes(const std::string& dtype);

struct SafetensorsTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte>
      bytes;  // In the mapping; lives as long as the reader or mapping(); may be unaligned
};

class SafetensorsReader {
 public:
  // A .safetensors file, an index .json, or a folder that holds model.safetensors or its index.
  // Throws InputError when it is not there, FormatError (file, tensor, byte range) when it cannot
  // be trusted: bad JSON, a key twice, offsets that leave the file, overlap or leave holes, a size
  // that dtype and shape contradict, an index that does not list exactly what its shards hold.
  explicit SafetensorsReader(const std::string& path);

  const std::map<std::string, SafetensorsTensor>& tensors() const { return tensors_; }
  // Throws FormatError when absent.
  const SafetensorsTensor& Get(const std::string& name) const;
  // "__metadata__" of the file, of all shards together.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }
  int64_t size_bytes() const;  // Of all files
  // Gives back the memory of all pages that were read; they are read from the files again when used.
  void DropPages() const;
  // Keeps the bytes of the tensors for longer than the reader lives.
  std::shared_ptr<const void> mapping() const { return files_; }

 private:
  void AddIndex(const std::string& index);
  void AddFile(const std::string& file);

  std::string path_;
  std::shared_ptr<std::vector<MappedFile>> files_ = std::make_shared<std::vector<MappedFile>>();
  std::map<std::string, SafetensorsTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes metadata {"format": "pt"}, which transformers wants. In a file, wider dtypes come first,
// so that every tensor is aligned to its element. Errors of the caller (a name twice, an unknown
// dtype) are BugError.
class SafetensorsWriter {
 public:
  static constexpr int64_t kDefaultShardBytes = 5'000'000'000;  // What Hugging Face tools use

  // The data must live until it is written. `mapped`: it lies in a mapping of a file
  // (DropMappedPages), whose memory is given back as it is written.
  void Add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
           const void* data, bool mapped = false);

  // One file, atomically. Throws ResourceError.
  void Write(const std::string& path) const;
  // model.safetensors, or, when the tensors have more than max_shard_bytes, model-0000k-of-0000n
  // shards filled in the order of Add and model.safetensors.index.json, which is written last. A
  // tensor larger than a shard gets one of its own. Throws InputError when the folder already holds
  // such files (readers would mix them), ResourceError.
  void WriteFolder(const std::string& folder, int64_t max_shard_bytes = kDefaultShardBytes) const;
  // What WriteFolder's files of tensors will have, headers included. Looks at no data.
  int64_t FolderBytes(int64_t max_shard_bytes = kDefaultShardBytes) const;

 private:
  struct Tensor {
    std::string name, dtype;
    std::vector<int64_t> shape;
    const void* data;
    int64_t element_bytes, size_bytes;
    bool mapped;
  };
  using Tensors = std::vector<const Tensor*>;
  std::vector<Tensors> Shards(int64_t max_shard_bytes) const;
  // Puts the tensors in the order of the file. Its length is a multiple of 8.
  static std::string HeaderOf(Tensors* tensors);
  static void WriteFile(Tensors tensors, const std::string& path);

  std::vector<Tensor> tensors_;
};

}  // namespace tern::formats
