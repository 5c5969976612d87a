// Files that survive a crash: whole-file reads, read-only mappings, and replacement by
// write-beside, fsync, rename. Every function throws InputError for a path the user gave that
// cannot be read, ResourceError when the system refuses (disk full, read-only folder), with the
// path and the system's own words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tern {

// The whole file as bytes.
std::string ReadFile(const std::string& path);

// AtomicFile (atomic_file.h) of these bytes: at any moment `path` is the old file or the new one,
// never a part.
void WriteFileAtomically(const std::string& path, std::string_view bytes);

// Appends `line` and a newline in one write; the reader must drop a torn last line.
void AppendLine(const std::string& path, std::string_view line);

// Removes what processes that were killed have left beside the files they wrote, in the folder and
// those below: files and folders named *.tmp.PID and *.unverified.PID. REQUIRES: nobody writes
// there now.
void RemoveUnfinishedFiles(const std::string& folder);

// fsync of a file or folder by path.
void SyncPath(const std::string& path);

// Makes the folder and its parents; no error when it is there.
void MakeFolders(const std::string& path);

// Read-only memory mapping of a whole file. Move-only; an empty file maps to an empty span.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Gives the memory of whole pages within `bytes` back; they are read from the file again when used.
// REQUIRES: bytes of a MappedFile, or of another mapping whose changes go to its file (MAP_SHARED).
void DropMappedPages(std::span<const std::byte> bytes);
// Of a mapped file in memory at once while it is copied or looked through.
inline constexpr int64_t kMappedPiece = 4 << 20;
// Copies `bytes` to `out` and gives their memory back on the way. REQUIRES: as DropMappedPages.
void CopyMapped(std::span<const std::byte> bytes, void* out);

// Exclusive lock of a run folder: flock on `path`, held until destruction or the end of the
// process, however it ends. Throws ResourceError that names the holder's process when another
// process has it.
class FileLock {
 public:
  explicit FileLock(const std::string& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace tern
