// The HDF5 file driver that tern uses instead of the library's own: plain POSIX reads and writes,
// with one difference. After a write that the system refused (disk full, size limit, quota, I/O
// error) it keeps the errno and drops all further writes while telling HDF5 that they worked. HDF5
// writes its caches late, often only while it closes, and a close that fails is the least tested of
// its paths; this way a file always closes, and the caller learns of the loss, in the system's
// words, from FileStatus. Files are ordinary HDF5 files. No locking: tern replaces files by rename
// and never shares one that is being written.
#pragma once

#include <hdf5.h>

#include <memory>

namespace tern::h5 {

// What happened to one file. HDF5 has one open file for all ids of the same inode, which reports to
// the status of the first; hence shared with the driver, as that id may be closed before others.
struct FileStatus {
  int fd = -1;          // While the file is open
  int open_error = 0;   // errno of open(2)
  int read_error = 0;   // First errno of a read
  int write_error = 0;  // First errno of a write, truncate or close; nothing was written since
};

// File access properties with this driver, reporting to `status`, and with the 1.10 file format,
// whose metadata all carry checksums. Negative when HDF5 refuses. The caller closes the id with
// H5Pclose, while `status`, the variable, still lives.
hid_t MakeFileAccess(const std::shared_ptr<FileStatus>& status);

}  // namespace tern::h5
