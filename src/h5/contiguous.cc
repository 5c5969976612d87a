// Datasets in one piece that a reader may map; see h5.h.
#include <fcntl.h>

#include "h5/h5_impl.h"

namespace tern::h5 {

void File::CreateContiguous(const std::string& name, Type type, const std::vector<int64_t>& shape) {
  const LibraryLock lock;
  TERN_CHECK(!shape.empty(), name, " is a single value");
  const std::string what = "create dataset " + name;
  const std::vector<hsize_t> dims = Dims(shape);
  const Handle space{
      impl_->Own(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), what),
      H5Sclose};
  const Handle create{impl_->Own(H5Pcreate(H5P_DATASET_CREATE), what), H5Pclose};
  impl_->Check(H5Pset_layout(create.get(), H5D_CONTIGUOUS), what);
  impl_->Check(H5Pset_fill_time(create.get(), H5D_FILL_TIME_NEVER), what);
  const Handle links = impl_->LinkProperties();
  const Handle dataset{impl_->Own(H5Dcreate2(impl_->file.get(), name.c_str(), NativeId(type),
                                             space.get(), links.get(), create.get(), H5P_DEFAULT),
                                  what),
                       H5Dclose};
}

void File::WriteRows(const std::string& name, Type type, int64_t first, int64_t rows,
                     const void* data) {
  const LibraryLock lock;
  if (rows == 0) return;
  const std::string what = "write dataset " + name;
  const Handle dataset = impl_->Dataset(name);
  const Handle space = impl_->SpaceOf(dataset, name);
  std::vector<hsize_t> begin, count = Dims(impl_->Shape(space, name));
  begin.resize(count.size());
  begin[0] = static_cast<hsize_t>(first);
  count[0] = static_cast<hsize_t>(rows);
  impl_->Check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, begin.data(), nullptr, count.data(),
                                   nullptr),
               what);
  const Handle memory{
      impl_->Own(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), what),
      H5Sclose};
  impl_->Check(
      H5Dwrite(dataset.get(), NativeId(type), memory.get(), space.get(), H5P_DEFAULT, data), what);
}

void File::StartWriteback() {
  const LibraryLock lock;
  // Only a hint: what it cannot do, the sync at the end does.
  if (impl_->status->fd >= 0) ::sync_file_range(impl_->status->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

int64_t File::ContiguousOffset(const std::string& name) const {
  const LibraryLock lock;
  const Handle dataset = impl_->Dataset(name);
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF) H5Eclear2(H5E_DEFAULT);
  hsize_t file_bytes = 0;
  impl_->Check(H5Fget_filesize(impl_->file.get(), &file_bytes), "read the size");
  const hsize_t bytes = H5Dget_storage_size(dataset.get());
  TERN_CHECK_FORMAT(offset != HADDR_UNDEF && offset <= file_bytes && bytes <= file_bytes - offset,
                    path(), ": dataset ", name, " does not lie in one piece within the file");
  return static_cast<int64_t>(offset);
}

}  // namespace tern::h5
