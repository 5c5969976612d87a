// Streams a file to a name beside its own and renames it into place when whole: at any moment the
// path is the old file or the new one. Dropped without Commit, it leaves nothing behind.
#pragma once

#include <cstdint>
#include <string>

namespace tern {

class AtomicFile {
 public:
  // A link stays, and what it leads to is replaced. Throws InputError for a path that is something
  // else than a file, ResourceError when the folder cannot be written.
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Throws ResourceError (disk full).
  void Write(const void* data, size_t size_bytes);
  int64_t position() const { return position_; }
  // fsync, rename, fsync of the folder.
  void Commit();

 private:
  std::string path_, beside_;
  int fd_ = -1;
  int64_t position_ = 0;
};

}  // namespace tern
