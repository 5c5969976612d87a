// The bytes of a file in order, as they are or out of zstd frames, in constant memory. Limits keep
// a hostile archive from taking memory (window) or time without end (inflation).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace tern::data {

class ByteStream {
 public:
  // Paths that end in .zst are decompressed; all frames are read as one stream. Throws InputError
  // when the file cannot be read.
  explicit ByteStream(const std::string& path);
  ~ByteStream();
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  // Up to `size` (> 0) bytes into `out`; 0 only at the end. Throws FormatError for a damaged or
  // truncated archive, a window above 128 MiB (zstd --long=27), or more than 1,000 bytes out of a
  // byte once 64 MiB have come out.
  size_t Read(char* out, size_t size);
  int64_t bytes_read() const;  // Of the file

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::data
