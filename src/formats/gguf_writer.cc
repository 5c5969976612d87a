// GgufWriter of gguf.h.
#include <algorithm>
#include <cstring>

#include "base/atomic_file.h"
#include "base/error.h"
#include "formats/gguf.h"

namespace tern::formats {
namespace {

constexpr uint64_t kAlignment = 32;  // The format's default; not written as a key
constexpr uint32_t kVersion = 3;
constexpr size_t kMaxTensorName = 63, kMaxDims = 4;  // GGML_MAX_NAME counts the final zero
constexpr int64_t kBufferBytes = 1 << 20;            // Rows of one write
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

int64_t RowsOf(const std::vector<int64_t>& shape) {
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < shape.size(); ++d) rows *= shape[d];
  return rows;
}

// How a tensor is asked for: so many pieces of so many bytes. A row each, but a type with a tail
// comes in one piece.
struct Pieces {
  int64_t count, bytes;
};
Pieces PiecesOf(GgmlType type, const std::vector<int64_t>& shape) {
  const int64_t rows = RowsOf(shape), row_bytes = RowBytes(type, shape.back());
  const int64_t tail = TailBytes(type);
  return tail == 0 ? Pieces{rows, row_bytes} : Pieces{1, rows * row_bytes + tail};
}

uint64_t Aligned(uint64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void GgufWriter::AddKey(const std::string& key, uint32_t type) {
  TERN_CHECK(keys_.insert(key).second, key, " is added twice");
  PutText(metadata_, key);
  Put(metadata_, type);
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

void GgufWriter::AddTensor(const std::string& name, GgmlType type,
                           const std::vector<int64_t>& shape, RowWriter write_row) {
  TERN_CHECK(!name.empty() && name.size() <= kMaxTensorName, "\"", name, "\" has ", name.size(),
             " bytes; llama.cpp reads at most ", kMaxTensorName);
  TERN_CHECK(!shape.empty() && shape.size() <= kMaxDims, name, " has ", shape.size(), " axes");
  for (const int64_t size : shape) TERN_CHECK(size > 0, name, " has an axis of ", size);
  for (const Tensor& tensor : tensors_) TERN_CHECK(tensor.name != name, name, " is added twice");
  RowBytes(type, shape.back());
  tensors_.push_back({name, type, shape, std::move(write_row)});
}

std::string GgufWriter::Head() const {
  std::string head("GGUF");
  Put(head, kVersion);
  Put(head, static_cast<uint64_t>(tensors_.size()));
  Put(head, static_cast<uint64_t>(keys_.size()));
  head += metadata_;
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    PutText(head, tensor.name);
    Put(head, static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) Put(head, *size);
    Put(head, static_cast<uint32_t>(tensor.type));
    Put(head, offset);
    const Pieces pieces = PiecesOf(tensor.type, tensor.shape);
    offset += Aligned(static_cast<uint64_t>(pieces.count * pieces.bytes));
  }
  return head;
}

void GgufWriter::Write(const std::string& path) const {
  AtomicFile file(path);
  const auto pad = [&file] {
    static constexpr char kZeros[kAlignment] = {};
    const uint64_t position = static_cast<uint64_t>(file.position());
    file.Write(kZeros, Aligned(position) - position);
  };
  const std::string head = Head();
  file.Write(head.data(), head.size());
  pad();
  std::vector<uint8_t> buffer;
  for (const Tensor& tensor : tensors_) {
    const auto [rows, row_bytes] = PiecesOf(tensor.type, tensor.shape);
    const int64_t at_once = std::clamp<int64_t>(kBufferBytes / row_bytes, 1, rows);
    buffer.resize(static_cast<size_t>(at_once * row_bytes));
    for (int64_t begin = 0; begin < rows; begin += at_once) {
      const int64_t end = std::min(begin + at_once, rows);
      for (int64_t r = begin; r < end; ++r) {
        tensor.write_row(r, buffer.data() + (r - begin) * row_bytes);
      }
      file.Write(buffer.data(), static_cast<size_t>((end - begin) * row_bytes));
    }
    pad();
  }
  file.Commit();
}

}  // namespace tern::formats
