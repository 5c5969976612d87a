// See atomic_file.h.
#include "base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace tern {

namespace {

// The file that is to be replaced: behind a link that which it leads to. Devices and pipes, which a
// rename would take away, are refused.
std::string Target(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw InputError(StrCat("cannot write ", path, ": it is ",
                            fs::is_directory(status) ? "a folder" : "no regular file",
                            "; want the name of a file"));
  }
  if (!fs::is_symlink(path, error)) return path;
  if (fs::exists(status)) return fs::canonical(path).string();
  return (fs::path(path).parent_path() / fs::read_symlink(path)).string();
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path)
    : path_(Target(path)), beside_(StrCat(path_, ".tmp.", ::getpid())) {
  fd_ = ::open(beside_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) throw ResourceError(StrCat("cannot create ", beside_, ": ", std::strerror(errno)));
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(beside_.c_str());
}

void AtomicFile::Write(const void* data, size_t size_bytes) {
  const char* at = static_cast<const char*>(data);
  position_ += static_cast<int64_t>(size_bytes);
  while (size_bytes > 0) {
    const ssize_t n = ::write(fd_, at, size_bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw ResourceError(StrCat("cannot write ", beside_, ": ", std::strerror(errno)));
    at += n;
    size_bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::Commit() {
  if (::fsync(fd_) != 0)
    throw ResourceError(StrCat("cannot sync ", beside_, ": ", std::strerror(errno)));
  if (::rename(beside_.c_str(), path_.c_str()) != 0) {
    throw ResourceError(StrCat("cannot rename to ", path_, ": ", std::strerror(errno)));
  }
  ::close(fd_);
  fd_ = -1;
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  SyncPath(folder.empty() ? "." : folder);
}

}  // namespace tern
