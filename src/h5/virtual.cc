// Virtual datasets: one name for rows that lie in several files, as h5py and every HDF5 tool read
// them (HDF5 1.10, "Virtual Datasets"); and reading some rows of any dataset. HDF5 looks for a
// relative file name in the folder of the file that names it.
#include "h5/h5.h"
#include "h5/h5_impl.h"

namespace tern::h5 {
namespace {

// Selects rows [first, first + rows) of a space of `dims`.
herr_t SelectRows(hid_t space, const std::vector<hsize_t>& dims, int64_t first, int64_t rows) {
  std::vector<hsize_t> start(dims.size(), 0), count = dims;
  start[0] = static_cast<hsize_t>(first);
  count[0] = static_cast<hsize_t>(rows);
  return H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
}

}  // namespace

void File::CreateVirtual(const std::string& name, Type type, const std::vector<int64_t>& shape,
                         const std::vector<VirtualPart>& parts) {
  const LibraryLock lock;
  TERN_CHECK(!shape.empty(), name);
  const std::string what = "create virtual dataset " + name;
  const std::vector<hsize_t> dims = Dims(shape);
  const int rank = static_cast<int>(dims.size());
  const Handle space{impl_->Own(H5Screate_simple(rank, dims.data(), nullptr), what), H5Sclose};
  const Handle create{impl_->Own(H5Pcreate(H5P_DATASET_CREATE), what), H5Pclose};
  int64_t covered = 0;
  for (const VirtualPart& part : parts) {
    TERN_CHECK(part.first == covered && part.file.find('/') == std::string::npos, name, ": rows ",
               part.first, " of ", part.file);
    covered += part.rows;
    if (part.rows == 0) continue;
    std::vector<hsize_t> part_dims = dims;
    part_dims[0] = static_cast<hsize_t>(part.rows);
    const Handle from{impl_->Own(H5Screate_simple(rank, part_dims.data(), nullptr), what),
                      H5Sclose};
    impl_->Check(SelectRows(space.get(), dims, part.first, part.rows), what);
    impl_->Check(H5Pset_virtual(create.get(), space.get(), part.file.c_str(), part.dataset.c_str(),
                                from.get()),
                 what);
  }
  TERN_CHECK(covered == shape[0], name, ": ", covered, " of ", shape[0], " rows");
  impl_->Check(H5Sselect_all(space.get()), what);
  const Handle links = impl_->LinkProperties();
  const Handle dataset{impl_->Own(H5Dcreate2(impl_->file.get(), name.c_str(), NativeId(type),
                                             space.get(), links.get(), create.get(), H5P_DEFAULT),
                                  what),
                       H5Dclose};
}

void File::ReadRows(const std::string& name, Type type, const std::vector<int64_t>& shape,
                    int64_t first, int64_t rows, void* out) const {
  const LibraryLock lock;
  const Handle dataset = impl_->Dataset(name);
  impl_->CheckType(dataset, name, type);
  const Handle space = impl_->SpaceOf(dataset, name);
  TERN_CHECK_FORMAT(impl_->Shape(space, name) == shape && !shape.empty(), path(), ": dataset ",
                    name, " has another shape than is wanted");
  TERN_CHECK(first >= 0 && rows >= 0 && first <= shape[0] - rows, name, ": rows ", first, " + ",
             rows, " of ", shape[0]);
  if (rows == 0) return;
  const std::string what = "read dataset " + name;
  const std::vector<hsize_t> dims = Dims(shape);
  impl_->Check(SelectRows(space.get(), dims, first, rows), what);
  std::vector<hsize_t> memory_dims = dims;
  memory_dims[0] = static_cast<hsize_t>(rows);
  const Handle memory{
      impl_->Own(H5Screate_simple(static_cast<int>(dims.size()), memory_dims.data(), nullptr),
                 what),
      H5Sclose};
  impl_->Check(H5Dread(dataset.get(), NativeId(type), memory.get(), space.get(), H5P_DEFAULT, out),
               what);
  impl_->CheckParts("read the parts of dataset " + name);
}

}  // namespace tern::h5
