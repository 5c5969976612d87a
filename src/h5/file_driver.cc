// See file_driver.h. The callbacks follow H5FDpublic.h of HDF5 1.10.
#include "h5/file_driver.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>

namespace tern::h5 {
namespace {

constexpr haddr_t kMaxAddress = (haddr_t{1} << 62) - 1;
constexpr size_t kMaxTransfer = size_t{1} << 30;  // Linux moves at most 2^31 - 4096 bytes a call.

struct DriverInfo {  // HDF5 copies it byte by byte
  const std::shared_ptr<FileStatus>* status;
};

struct OpenFile {
  H5FD_t base;  // First: HDF5 holds a pointer to it.
  int fd;
  std::shared_ptr<FileStatus> status;
  haddr_t end_of_address;  // HDF5's idea of the size
  haddr_t size;            // The file's size, dropped writes counted in
  dev_t device;
  ino_t inode;
};

OpenFile* Cast(H5FD_t* file) { return reinterpret_cast<OpenFile*>(file); }
const OpenFile* Cast(const H5FD_t* file) { return reinterpret_cast<const OpenFile*>(file); }

// errno as it is, or "I/O error" for a call that fails without one.
int SystemError() { return errno != 0 ? errno : EIO; }

H5FD_t* Open(const char* name, unsigned flags, hid_t access, haddr_t /*max_address*/) {
  const auto* info = static_cast<const DriverInfo*>(H5Pget_driver_info(access));
  if (info == nullptr) return nullptr;
  int mode = (flags & H5F_ACC_RDWR) != 0 ? O_RDWR : O_RDONLY;
  if ((flags & H5F_ACC_TRUNC) != 0) mode |= O_TRUNC;
  if ((flags & H5F_ACC_CREAT) != 0) mode |= O_CREAT;
  if ((flags & H5F_ACC_EXCL) != 0) mode |= O_EXCL;
  const int fd = ::open(name, mode | O_CLOEXEC, 0644);
  struct stat stats {};
  if (fd < 0 || ::fstat(fd, &stats) != 0) {
    (*info->status)->open_error = SystemError();
    if (fd >= 0) ::close(fd);
    return nullptr;
  }
  auto file = std::make_unique<OpenFile>();
  file->base = {};
  file->fd = fd;
  file->status = *info->status;
  file->status->fd = fd;
  file->end_of_address = 0;
  file->size = static_cast<haddr_t>(stats.st_size);
  file->device = stats.st_dev;
  file->inode = stats.st_ino;
  return &file.release()->base;
}

herr_t Close(H5FD_t* base) {
  const std::unique_ptr<OpenFile> file(Cast(base));
  file->status->fd = -1;
  if (::close(file->fd) != 0 && file->status->write_error == 0) {
    file->status->write_error = SystemError();
  }
  return 0;
}

int Compare(const H5FD_t* a, const H5FD_t* b) {
  const OpenFile *left = Cast(a), *right = Cast(b);
  if (left->device != right->device) return left->device < right->device ? -1 : 1;
  if (left->inode != right->inode) return left->inode < right->inode ? -1 : 1;
  return 0;
}

herr_t Query(const H5FD_t* /*file*/, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t GetEndOfAddress(const H5FD_t* file, H5FD_mem_t /*type*/) {
  return Cast(file)->end_of_address;
}

herr_t SetEndOfAddress(H5FD_t* file, H5FD_mem_t /*type*/, haddr_t address) {
  Cast(file)->end_of_address = address;
  return 0;
}

haddr_t GetEndOfFile(const H5FD_t* file, H5FD_mem_t /*type*/) { return Cast(file)->size; }

herr_t Read(H5FD_t* base, H5FD_mem_t /*type*/, hid_t /*transfer*/, haddr_t address, size_t size,
            void* buffer) {
  OpenFile* file = Cast(base);
  if (address > kMaxAddress || size > kMaxAddress - address) return -1;
  auto* out = static_cast<uint8_t*>(buffer);
  while (size > 0) {
    const ssize_t n =
        ::pread(file->fd, out, std::min(size, kMaxTransfer), static_cast<off_t>(address));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      if (file->status->read_error == 0) file->status->read_error = SystemError();
      return -1;
    }
    if (n == 0) break;
    out += n;
    address += static_cast<haddr_t>(n);
    size -= static_cast<size_t>(n);
  }
  std::memset(out, 0, size);  // Behind the end: zeros, as HDF5's own drivers give.
  return 0;
}

herr_t Write(H5FD_t* base, H5FD_mem_t /*type*/, hid_t /*transfer*/, haddr_t address, size_t size,
             const void* buffer) {
  OpenFile* file = Cast(base);
  if (address > kMaxAddress || size > kMaxAddress - address) return -1;
  file->size = std::max(file->size, address + size);
  const auto* from = static_cast<const uint8_t*>(buffer);
  while (size > 0 && file->status->write_error == 0) {
    const ssize_t n =
        ::pwrite(file->fd, from, std::min(size, kMaxTransfer), static_cast<off_t>(address));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      file->status->write_error = SystemError();
      break;
    }
    from += n;
    address += static_cast<haddr_t>(n);
    size -= static_cast<size_t>(n);
  }
  return 0;
}

// Makes the file as long as HDF5 thinks it is: at close, so that a file cut short later is seen to
// be.
herr_t Truncate(H5FD_t* base, hid_t /*transfer*/, hbool_t /*closing*/) {
  OpenFile* file = Cast(base);
  if (file->size == file->end_of_address) return 0;
  file->size = file->end_of_address;
  if (file->status->write_error == 0 &&
      ::ftruncate(file->fd, static_cast<off_t>(file->size)) != 0) {
    file->status->write_error = SystemError();
  }
  return 0;
}

hid_t RegisterDriver() {
  static const H5FD_class_t driver = [] {
    H5FD_class_t c{};
    c.name = "tern";
    c.maxaddr = kMaxAddress;
    c.fc_degree = H5F_CLOSE_STRONG;
    c.fapl_size = sizeof(DriverInfo);
    c.open = Open;
    c.close = Close;
    c.cmp = Compare;
    c.query = Query;
    c.get_eoa = GetEndOfAddress;
    c.set_eoa = SetEndOfAddress;
    c.get_eof = GetEndOfFile;
    c.read = Read;
    c.write = Write;
    c.truncate = Truncate;
    std::fill(std::begin(c.fl_map), std::end(c.fl_map), H5FD_MEM_SUPER);  // One list of free space.
    return c;
  }();
  return H5FDregister(&driver);
}

}  // namespace

hid_t MakeFileAccess(const std::shared_ptr<FileStatus>& status) {
  static const hid_t driver = RegisterDriver();
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  if (access < 0) return access;
  const DriverInfo info{&status};
  if (H5Pset_driver(access, driver, &info) < 0 ||
      H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0) {
    H5Pclose(access);
    return -1;
  }
  return access;
}

}  // namespace tern::h5
