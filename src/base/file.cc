// See file.h.
#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"

namespace tern {
namespace {

// "state.tmp.123", "model.unverified.7".
bool IsUnfinished(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot + 1 == name.size()) return false;
  if (name.find_first_not_of("0123456789", dot + 1) != std::string_view::npos) return false;
  const std::string_view stem = name.substr(0, dot);
  return stem.ends_with(".tmp") || stem.ends_with(".unverified");
}

// Closes the descriptor when the scope ends, whatever is thrown.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void ThrowSystem(const char* verb, const std::string& path) {
  throw ResourceError(StrCat("cannot ", verb, " ", path, ": ", std::strerror(errno)));
}

void WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) ThrowSystem("write", path);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

int OpenForReading(const std::string& path) {
  // Of a pipe, which is refused behind it, nobody may be waited for.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw InputError(StrCat("cannot open ", path, ": ", std::strerror(errno)));
  return fd;
}

size_t RegularFileSize(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) ThrowSystem("stat", path);
  TERN_CHECK_INPUT(S_ISREG(info.st_mode), path, " is not a regular file");
  return static_cast<size_t>(info.st_size);
}

}  // namespace

std::string ReadFile(const std::string& path) {
  const Descriptor fd(OpenForReading(path));
  std::string bytes(RegularFileSize(fd.get(), path), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::read(fd.get(), bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) ThrowSystem("read", path);
    if (n == 0) break;  // Truncated while we read: the caller's parser decides.
    done += static_cast<size_t>(n);
  }
  bytes.resize(done);
  return bytes;
}

void WriteFileAtomically(const std::string& path, std::string_view bytes) {
  AtomicFile file(path);
  file.Write(bytes.data(), bytes.size());
  file.Commit();
}

void AppendLine(const std::string& path, std::string_view line) {
  const Descriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (fd.get() < 0) ThrowSystem("open", path);
  WriteAll(fd.get(), StrCat(line, '\n'), path);
}

void SyncPath(const std::string& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) ThrowSystem("open", path);
  if (::fsync(fd.get()) != 0) ThrowSystem("sync", path);
}

void MakeFolders(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw ResourceError(StrCat("cannot make folder ", path, ": ", error.message()));
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor fd(OpenForReading(path));
  size_ = RegularFileSize(fd.get(), path);
  if (size_ == 0) return;
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) ThrowSystem("map", path);
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void RemoveUnfinishedFiles(const std::string& folder) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (IsUnfinished(entry.path().filename().string())) found.push_back(entry.path());
  }
  for (const std::filesystem::path& path : found) {
    std::error_code error;
    std::filesystem::remove_all(path, error);  // One inside of another is gone already
    if (error) throw ResourceError(StrCat(path.string(), " cannot be removed: ", error.message()));
  }
}

void DropMappedPages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void CopyMapped(std::span<const std::byte> bytes, void* out) {
  for (size_t at = 0; at < bytes.size(); at += kMappedPiece) {
    const auto piece = bytes.subspan(at, std::min<size_t>(kMappedPiece, bytes.size() - at));
    std::memcpy(static_cast<std::byte*>(out) + at, piece.data(), piece.size());
    DropMappedPages(piece);
  }
}

FileLock::FileLock(const std::string& path) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) ThrowSystem("open", path);
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t n = ::read(fd_, holder, sizeof holder - 1);
    ::close(fd_);
    throw ResourceError(StrCat("another run holds ", path,
                               n > 0 ? StrCat(" (process ", holder, ")") : "",
                               "; wait for it, stop it, or give this run another name (name=...)"));
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd_, 0) != 0) ThrowSystem("truncate", path);
  WriteAll(fd_, pid, path);
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace tern
