// HDF5 behind RAII and one checking wrapper: every failed call throws FormatError (reading) or
// ResourceError (writing) with the file, the object and HDF5's own innermost message, or the
// system's when it refused a read or write. A full disk never crashes: the file closes, and the
// call that met it throws (file_driver.h). Row-major, little-endian types. Files use the 1.10
// format, whose metadata carry checksums, as data chunks do; a file that a killed writer left open
// is refused. Functions may be called from any thread: one lock serializes them, because HDF5
// itself is not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tern::h5 {

enum class Type { kF32, kF64, kF16, kU8, kI8, kU16, kI32, kU32, kI64, kU64 };
int64_t SizeOf(Type type);

struct DatasetInfo {
  Type type;
  std::vector<int64_t> shape;
};

struct WriteOptions {
  int64_t chunk_bytes =
      1 << 20;  // Rows are grouped into chunks of about this size; 0: contiguous, no checksum.
  bool checksum = true;  // HDF5's fletcher32 filter on every chunk.
};

// Paths inside a file are absolute ("/model/embed"); missing groups are made when writing.
class File {
 public:
  // Truncates. Objects of 4 KiB and more begin at multiples of `alignment` bytes.
  static File Create(const std::string& path, int64_t alignment = 1);
  // FormatError when it is not HDF5, torn or too short; InputError when there is no such file.
  static File OpenForReading(const std::string& path);
  ~File();
  File(File&&) noexcept;
  File& operator=(File&&) noexcept;

  void Write(const std::string& name, Type type, const std::vector<int64_t>& shape,
             const void* data, const WriteOptions& options = {});
  // A dataset that grows along its first axis; used for token streams.
  void CreateAppendable(const std::string& name, Type type, int64_t rows_per_chunk);
  void Append(const std::string& name, Type type, const void* data, int64_t count);

  // A dataset in one piece, without chunks and HDF5's checksums, so that it can be mapped; its rows
  // (along the first axis) are written one range after the other.
  void CreateContiguous(const std::string& name, Type type, const std::vector<int64_t>& shape);
  void WriteRows(const std::string& name, Type type, int64_t first, int64_t rows, const void* data);
  // Asks the system to begin writing to the disk what it holds of the file, and returns at once.
  void StartWriteback();
  // A dataset whose rows (along the first axis) lie in other files of the same folder; the parts
  // cover it, and their names are relative, so that the folder can be moved. See virtual.cc.
  struct VirtualPart {
    std::string file, dataset;  // Plain file name; the part's dataset there, [rows, rest of shape]
    int64_t first = 0, rows = 0;
  };
  void CreateVirtual(const std::string& name, Type type, const std::vector<int64_t>& shape,
                     const std::vector<VirtualPart>& parts);

  // Bytes from the beginning of the file to a contiguous dataset's elements. FormatError when it is
  // of another layout or reaches beyond the file.
  int64_t ContiguousOffset(const std::string& name) const;

  bool Has(const std::string& name) const;
  // FormatError also when the dataset claims to be larger than the file: its size is safe to
  // allocate.
  DatasetInfo Info(const std::string& name) const;
  // Reads the whole dataset; `type` must equal the stored one and `size_bytes` the stored size.
  void Read(const std::string& name, Type type, void* out, int64_t size_bytes) const;
  // Elements [begin, begin + count) of a 1-D dataset.
  void ReadRange(const std::string& name, Type type, int64_t begin, int64_t count, void* out) const;
  // Rows [first, first + rows) of a dataset of `shape`, along its first axis.
  void ReadRows(const std::string& name, Type type, const std::vector<int64_t>& shape,
                int64_t first, int64_t rows, void* out) const;
  // Names of all datasets below `group`, in name order, absolute.
  std::vector<std::string> ListDatasets(const std::string& group = "/") const;

  // Attributes of an object ("/" for the file), each set once. Strings are UTF-8 without NUL, of
  // any length.
  void SetAttribute(const std::string& object, const std::string& key, const std::string& value);
  void SetAttribute(const std::string& object, const std::string& key, int64_t value);
  std::string StringAttribute(const std::string& object, const std::string& key) const;
  int64_t IntAttribute(const std::string& object, const std::string& key) const;
  bool HasAttribute(const std::string& object, const std::string& key) const;
  std::vector<std::string> AttributeNames(const std::string& object) const;

  // Flushes and closes, checking every call; the destructor closes without throwing.
  void Close();
  const std::string& path() const;

 private:
  struct Impl;
  explicit File(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::h5
