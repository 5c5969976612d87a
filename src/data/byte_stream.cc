// See byte_stream.h.
#include "data/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace tern::data {
namespace {

constexpr int kMaxWindowLog = 27;        // What zstd --long gives; more must be asked for by hand
constexpr int64_t kMaxInflation = 1000;  // Text shrinks to a twentieth at best
constexpr int64_t kFreeBytes = int64_t{64} << 20;

}  // namespace

struct ByteStream::Impl {
  explicit Impl(const std::string& the_path) : path(the_path) {
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    TERN_CHECK_INPUT(fd >= 0, "cannot read ", path, ": ", std::strerror(errno));
    struct stat status {};
    const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    if (!regular) {
      ::close(fd);
      throw InputError(StrCat(path, " is no regular file"));
    }
    if (!path.ends_with(".zst")) return;
    zstd = ZSTD_createDCtx();
    if (zstd == nullptr) {
      ::close(fd);
      throw ResourceError(StrCat(path, ": no memory for zstd"));
    }
    ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, kMaxWindowLog);
    packed.resize(ZSTD_DStreamInSize());
  }
  ~Impl() {
    ZSTD_freeDCtx(zstd);
    ::close(fd);
  }

  size_t ReadFile(char* out, size_t size) {
    for (;;) {
      const ssize_t count = ::read(fd, out, size);
      if (count >= 0) {
        file_bytes += count;
        return static_cast<size_t>(count);
      }
      if (errno != EINTR)
        throw InputError(StrCat("cannot read ", path, ": ", std::strerror(errno)));
    }
  }

  size_t Inflate(char* out, size_t size) {
    ZSTD_outBuffer to{out, size, 0};
    while (to.pos == 0) {
      if (from.pos == from.size && !drained) {
        from = {packed.data(), ReadFile(packed.data(), packed.size()), 0};
        drained = from.size == 0;
      }
      const size_t before = from.pos;
      // Called without new bytes, too: the decoder may still hold some of what it was given.
      const size_t left = ZSTD_decompressStream(zstd, &to, &from);
      TERN_CHECK_FORMAT(!ZSTD_isError(left), path, ": zstd, after ", text_bytes,
                        " bytes of text: ", ZSTD_getErrorName(left), " (windows up to 2^",
                        kMaxWindowLog, " bytes are read)");
      if (to.pos == 0 && from.pos == before && drained) {
        TERN_CHECK_FORMAT(inside == 0, path, ": the zstd frame is cut off after ", text_bytes,
                          " bytes of text; fetch the file again");
        return 0;
      }
      inside = left;
    }
    text_bytes += static_cast<int64_t>(to.pos);
    TERN_CHECK_FORMAT(text_bytes <= kFreeBytes || text_bytes / kMaxInflation <= file_bytes, path,
                      ": ", file_bytes, " bytes have become ", text_bytes, "; more than ",
                      kMaxInflation,
                      " to one is no text. Decompress the file by hand if it is meant so");
    return to.pos;
  }

  const std::string path;
  int fd = -1;
  ZSTD_DCtx* zstd = nullptr;  // Null: bytes as they are
  std::vector<char> packed;
  ZSTD_inBuffer from{nullptr, 0, 0};
  bool drained = false;  // The file gave its last byte
  size_t inside = 0;     // Not 0: a frame is open
  int64_t file_bytes = 0, text_bytes = 0;
};

ByteStream::ByteStream(const std::string& path) : impl_(std::make_unique<Impl>(path)) {}
ByteStream::~ByteStream() = default;

size_t ByteStream::Read(char* out, size_t size) {
  return impl_->zstd == nullptr ? impl_->ReadFile(out, size) : impl_->Inflate(out, size);
}
int64_t ByteStream::bytes_read() const { return impl_->file_bytes; }

}  // namespace tern::data
