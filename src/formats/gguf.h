// GGUF version 3 (docs/formats/gguf.md): typed metadata, then tensors, in one file that is mapped
// and never copied. The reader trusts nothing: every count, length, offset and type is checked
// against the file's size before it is used, and an error names the file and the byte offset.
// Shapes here are row-major ([N, K]); the file has them reversed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/file.h"
#include "formats/block_codec.h"

namespace tern::formats {

struct GgufTensor {
  std::string name;
  GgmlType type;
  std::vector<int64_t> shape;        // Row-major
  std::span<const std::byte> bytes;  // In the mapping; lives as long as it
  int64_t rows() const;              // Product of all but the last axis
  int64_t row_elements() const;      // Last axis
  const uint8_t* row(int64_t index) const;
};

class GgufReader {
 public:
  // Throws InputError when the file cannot be read, FormatError when it is not a GGUF that tern can
  // trust: cut short, counts beyond the limits of gguf_parser.cc, a key or tensor twice, a type it
  // does not know, tensors that overlap, are not aligned or reach beyond the end.
  explicit GgufReader(const std::string& path);

  const std::string& path() const { return file_->path(); }
  // Keeps the bytes of the tensors for longer than the reader lives.
  std::shared_ptr<const void> mapping() const { return file_; }
  // Gives back the memory of all pages that were read; they are read from the file again when used.
  void DropPages() const { DropMappedPages(file_->bytes()); }
  bool Has(const std::string& key) const { return metadata_.contains(key); }
  // Of the metadata, those that begin with `prefix`, sorted.
  std::vector<std::string> Keys(std::string_view prefix) const;
  // Throw FormatError when the key is missing or of another type. Integers of any width are taken
  // when they fit.
  std::string String(const std::string& key) const;
  int64_t Int(const std::string& key) const;
  double Real(const std::string& key) const;
  bool Flag(const std::string& key) const;
  std::vector<std::string> Strings(const std::string& key) const;
  std::vector<double> Numbers(const std::string& key) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* Find(std::string_view name) const;  // Null when absent
  // Throws FormatError when absent.
  const GgufTensor& Get(std::string_view name) const;
  // The metadata as JSON: arrays as {"items": count, "first": the first `max_items`}. Bytes that
  // are no UTF-8 become U+FFFD, so that any dump works.
  nlohmann::json Metadata(size_t max_items) const;

 private:
  friend class GgufParser;
  using Value = std::variant<bool, int64_t, double, std::string, std::vector<std::string>,
                             std::vector<double>>;
  template <class T>
  const T& Typed(const std::string& key, const char* want) const;

  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, Value> metadata_;
  std::vector<GgufTensor> tensors_;
};

// Collects metadata and tensors and writes them in one pass. Tensor data is asked for row by row
// while writing, so a model is never held twice.
class GgufWriter {
 public:
  // Errors of the caller (a key or tensor twice, a shape that is none, a name beyond the 63 bytes
  // that llama.cpp reads) are BugError.
  explicit GgufWriter(const std::string& architecture) {
    AddString("general.architecture", architecture);
  }

  // Text may be any bytes.
  void AddString(const std::string& key, const std::string& value);
  void AddU32(const std::string& key, uint32_t value);
  void AddF32(const std::string& key, float value);
  void AddBool(const std::string& key, bool value);
  void AddStrings(const std::string& key, const std::vector<std::string>& values);
  void AddF32s(const std::string& key, const std::vector<float>& values);
  void AddI32s(const std::string& key, const std::vector<int32_t>& values);

  // Throws FormatError when the last axis is no multiple of the type's block. write_row(row, out)
  // fills RowBytes(type, K) bytes; of an I2_S matrix it is called once, with row 0, and fills
  // I2sBytes(N, K). Shape is row-major.
  using RowWriter = std::function<void(int64_t row, uint8_t* out)>;
  void AddTensor(const std::string& name, GgmlType type, const std::vector<int64_t>& shape,
                 RowWriter write_row);

  // Atomically. Throws ResourceError (disk full, read-only folder).
  void Write(const std::string& path) const;

 private:
  struct Tensor {
    std::string name;
    GgmlType type;
    std::vector<int64_t> shape;
    RowWriter write_row;
  };
  void AddKey(const std::string& key, uint32_t type);

  // Everything before the tensors' data, without padding.
  std::string Head() const;

  std::string metadata_;  // Encoded
  std::set<std::string> keys_;
  std::vector<Tensor> tensors_;
};

}  // namespace tern::formats
