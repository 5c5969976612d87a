// Virtual datasets: one name for rows that lie in several files, as h5py and every HDF5 tool read
// them (HDF5 1.10, "Virtual Datasets"); and reading some rows of any dataset. HDF5 looks for a
// relative file name in the folder of the file that names it. We read the parts themselves: HDF5
// gives zeros for a file that is missing, and HDF5 1.10.8 also for some selections that cross from
// one part to the next (tests/h5/virtual_test.cc has one).
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

// The parts of a virtual dataset, as its creation properties say.
std::vector<File::VirtualPart> PartsOf(hid_t create, size_t dimensions, const std::string& path) {
  std::vector<File::VirtualPart> parts;
  size_t count = 0;
  if (H5Pget_virtual_count(create, &count) < 0) Fail(Access::kRead, path, "read virtual parts");
  for (size_t i = 0; i < count; ++i) {
    File::VirtualPart part;
    for (const auto& [get, text] : {std::pair{&H5Pget_virtual_filename, &part.file},
                                    std::pair{&H5Pget_virtual_dsetname, &part.dataset}}) {
      const ssize_t length = get(create, i, nullptr, 0);
      if (length < 0) Fail(Access::kRead, path, "read virtual parts");
      text->resize(static_cast<size_t>(length) + 1);  // HDF5 ends it with a NUL.
      get(create, i, text->data(), text->size());
      text->pop_back();
    }
    TERN_CHECK_FORMAT(
        !part.file.empty() && part.file[0] != '.' && part.file.find('/') == std::string::npos, path,
        ": a virtual dataset lies in \"", part.file,
        "\"; want a plain file name in the same folder");
    const Handle space{H5Pget_virtual_vspace(create, i), H5Sclose};
    std::vector<hsize_t> begin(dimensions), end(dimensions);
    if (H5Sget_select_bounds(space.get(), begin.data(), end.data()) < 0) {
      Fail(Access::kRead, path, "read virtual parts");
    }
    part.first = static_cast<int64_t>(begin[0]);
    part.rows = static_cast<int64_t>(end[0] - begin[0] + 1);
    parts.push_back(std::move(part));
  }
  return parts;
}

// Rows [first, first + rows) of a virtual dataset of `shape` in the file `path`.
void ReadParts(const std::string& path, const std::vector<File::VirtualPart>& parts, Type type,
               const std::vector<int64_t>& shape, int64_t first, int64_t rows, void* out) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  int64_t row_bytes = SizeOf(type), found = 0;
  for (size_t i = 1; i < shape.size(); ++i) row_bytes *= shape[i];
  for (const File::VirtualPart& part : parts) {
    const int64_t begin = std::max(first, part.first),
                  end = std::min(first + rows, part.first + part.rows);
    if (begin >= end) continue;
    std::vector<int64_t> part_shape = shape;
    part_shape[0] = part.rows;
    const File file = File::OpenForReading((folder / part.file).string());
    file.ReadRows(part.dataset, type, part_shape, begin - part.first, end - begin,
                  static_cast<char*>(out) + (begin - first) * row_bytes);
    found += end - begin;
  }
  TERN_CHECK_FORMAT(found == rows, path, ": the parts of a virtual dataset hold ", found, " of ",
                    rows, " rows");
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
  if (impl_->IsVirtual(dataset, name)) {
    const Handle create{
        impl_->Own(H5Dget_create_plist(dataset.get()), "read the layout of " + name), H5Pclose};
    return ReadParts(path(), PartsOf(create.get(), shape.size(), path()), type, shape, first, rows,
                     out);
  }
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
}

}  // namespace tern::h5
