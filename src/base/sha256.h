// SHA-256 of bytes and files (libcrypto does the work), as lower-case hex.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tern {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(const void* data, size_t size_bytes);
  // 64 hex digits. REQUIRES: called once, nothing updated after.
  std::string HexDigest();

 private:
  void* context_;
};

std::string Sha256Hex(std::string_view bytes);
// Streams the file in 1 MiB parts. Throws InputError when it cannot be read.
std::string Sha256OfFile(const std::string& path);
// The same of a file; of a folder that of its files' names and hashes, in the order of their names
// (folders within are left out).
std::string Sha256OfPath(const std::string& path);

}  // namespace tern
