// GgufWriter of gguf.h.
#include <cstring>

#include "base/atomic_file.h"
#include "base/error.h"
#include "formats/gguf.h"

namespace tern::formats {
namespace {

constexpr uint64_t kAlignment = 32;   // The format's default; not written as a key
constexpr uint32_t kVersion = 3;
enum : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9 };

template <class T>
void Put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void PutText(std::string& out, const std::string& text) {
  Put(out, static_cast<uint64_t>(text.size()));
  out += text;
}

uint64_t Aligned(uint64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void GgufWriter::AddKey(const std::string& key, uint32_t type) {
  PutText(metadata_, key);
  Put(metadata_, type);
  ++num_keys_;
}

void GgufWriter::AddString(const std::string& key, const std::string& value) {
  AddKey(key, kString);
  PutText(metadata_, value);
}
void GgufWriter::AddU32(const std::string& key, uint32_t value) {
  AddKey(key, kU32);
  Put(metadata_, value);
}
void GgufWriter::AddF32(const std::string& key, float value) {
  AddKey(key, kF32);
  Put(metadata_, value);
}
void GgufWriter::AddBool(const std::string& key, bool value) {
  AddKey(key, kBool);
  Put(metadata_, static_cast<uint8_t>(value));
}
void GgufWriter::AddStrings(const std::string& key, const std::vector<std::string>& values) {
  AddKey(key, kArray);
  Put(metadata_, uint32_t{kString});
  Put(metadata_, static_cast<uint64_t>(values.size()));
  for (const std::string& value : values) PutText(metadata_, value);
}
void GgufWriter::AddF32s(const std::string& key, const std::vector<float>& values) {
  AddKey(key, kArray);
  Put(metadata_, uint32_t{kF32});
  Put(metadata_, static_cast<uint64_t>(values.size()));
  for (const float value : values) Put(metadata_, value);
}
void GgufWriter::AddI32s(const std::string& key, const std::vector<int32_t>& values) {
  AddKey(key, kArray);
  Put(metadata_, uint32_t{kI32});
  Put(metadata_, static_cast<uint64_t>(values.size()));
  for (const int32_t value : values) Put(metadata_, value);
}

void GgufWriter::AddTensor(const std::string& name, GgmlType type, const std::vector<int64_t>& shape,
                           RowWriter write_row) {
  TERN_CHECK(!shape.empty(), name);
  tensors_.push_back({name, type, shape, std::move(write_row)});
}

void GgufWriter::Write(const std::string& path) const {
  std::string head;
  head.append("GGUF");
  Put(head, kVersion);
  Put(head, static_cast<uint64_t>(tensors_.size()));
  Put(head, num_keys_);
  head += metadata_;
  uint64_t offset = 0;
  const auto rows_of = [](const Tensor& tensor) {
    int64_t rows = 1;
    for (size_t d = 0; d + 1 < tensor.shape.size(); ++d) rows *= tensor.shape[d];
    return rows;
  };
  for (const Tensor& tensor : tensors_) {
    PutText(head, tensor.name);
    Put(head, static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) Put(head, *size);
    Put(head, static_cast<uint32_t>(tensor.type));
    Put(head, offset);
    offset += Aligned(static_cast<uint64_t>(rows_of(tensor) * RowBytes(tensor.type, tensor.shape.back())));
  }
  AtomicFile file(path);
  const auto pad = [&file] {
    static constexpr char kZeros[kAlignment] = {};
    const uint64_t position = static_cast<uint64_t>(file.position());
    file.Write(kZeros, Aligned(position) - position);
  };
  file.Write(head.data(), head.size());
  pad();
  for (const Tensor& tensor : tensors_) {
    std::vector<uint8_t> row(static_cast<size_t>(RowBytes(tensor.type, tensor.shape.back())));
    for (int64_t r = 0; r < rows_of(tensor); ++r) {
      tensor.write_row(r, row.data());
      file.Write(row.data(), row.size());
    }
    pad();
  }
  file.Commit();
}

}  // namespace tern::formats
