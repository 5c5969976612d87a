// See append_file.h.
#include "metrics/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace tern {

AppendFile::AppendFile(const std::string& path, Mode mode) : path_(path) {
  const int create = mode == Mode::kCreateNew ? O_CREAT | O_EXCL : O_CREAT;
  fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | create, 0644);
  if (fd_ < 0) throw ResourceError(StrCat("cannot open ", path_, ": ", std::strerror(errno)));
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) ::close(fd_);
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  return *this;
}

void AppendFile::Write(std::string_view record) {
  while (!record.empty()) {
    const ssize_t n = ::write(fd_, record.data(), record.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw ResourceError(StrCat("cannot write ", path_, ": ", std::strerror(errno)));
    record.remove_prefix(static_cast<size_t>(n));
  }
}

void AppendFile::Sync() {
  if (::fsync(fd_) != 0)
    throw ResourceError(StrCat("cannot sync ", path_, ": ", std::strerror(errno)));
}

}  // namespace tern
