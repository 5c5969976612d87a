// See h5.h. Every id is owned by a Handle; every call goes through Check or Own, which turn a
// failure into a typed error with HDF5's innermost message; writes that the system refused are
// found in FileStatus (file_driver.h) after each call. One lock around every public function
// serializes the library, which is not thread-safe as Debian builds it.
#include "h5/h5.h"

#include "h5/h5_impl.h"

namespace tern::h5 {

int64_t SizeOf(Type type) {
  for (const TypeEntry& entry : kTypes) {
    if (entry.type == type) return entry.size_bytes;
  }
  __builtin_unreachable();
}

File::File(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
File::~File() {
  const LibraryLock lock;
  impl_.reset();
}
File::File(File&&) noexcept = default;
File& File::operator=(File&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}
const std::string& File::path() const { return impl_->path; }

File File::Create(const std::string& path, int64_t alignment) {
  const LibraryLock lock;
  auto impl = std::make_unique<Impl>(path, Access::kWrite);
  const Handle access{impl->Own(MakeFileAccess(impl->status), "create"), H5Pclose};
  impl->Check(H5Pset_alignment(access.get(), 4096, static_cast<hsize_t>(alignment)), "create");
  const hid_t id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get());
  if (id < 0) impl->CheckSystem(impl->status->open_error, "create");
  impl->file = {impl->Own(id, "create"), H5Fclose};
  return File(std::move(impl));
}

File File::OpenForReading(const std::string& path) {
  const LibraryLock lock;
  auto impl = std::make_unique<Impl>(path, Access::kRead);
  TERN_CHECK_INPUT(!std::filesystem::is_directory(path), path, " is a folder; want an HDF5 file");
  const Handle access{impl->Own(MakeFileAccess(impl->status), "open"), H5Pclose};
  const hid_t id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get());
  if (id < 0 && impl->status->open_error != 0) {
    H5Eclear2(H5E_DEFAULT);
    throw InputError(StrCat("cannot open ", path, ": ", std::strerror(impl->status->open_error)));
  }
  impl->file = {impl->Own(id, "open as HDF5"), H5Fclose};
  return File(std::move(impl));
}

void File::Write(const std::string& name, Type type, const std::vector<int64_t>& shape,
                 const void* data, const WriteOptions& options) {
  const LibraryLock lock;
  const std::vector<hsize_t> dims = Dims(shape);
  const bool empty = std::find(dims.begin(), dims.end(), 0u) != dims.end();
  const std::string what = "write dataset " + name;
  const Handle space{
      impl_->Own(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), what),
      H5Sclose};
  const Handle create{impl_->Own(H5Pcreate(H5P_DATASET_CREATE), what), H5Pclose};
  if (dims.empty()) {  // A single value lives in the object's header, which has a checksum.
    impl_->Check(H5Pset_layout(create.get(), H5D_COMPACT), what);
  } else if (options.chunk_bytes > 0 && !empty) {
    const std::vector<hsize_t> chunk = ChunkShape(dims, options.chunk_bytes / SizeOf(type));
    impl_->Check(H5Pset_chunk(create.get(), static_cast<int>(chunk.size()), chunk.data()), what);
    if (options.checksum) impl_->Check(H5Pset_fletcher32(create.get()), what);
  }
  const Handle links = impl_->LinkProperties();
  const Handle dataset{impl_->Own(H5Dcreate2(impl_->file.get(), name.c_str(), NativeId(type),
                                             space.get(), links.get(), create.get(), H5P_DEFAULT),
                                  what),
                       H5Dclose};
  if (empty) return;
  impl_->Check(H5Dwrite(dataset.get(), NativeId(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data), what);
}

void File::CreateAppendable(const std::string& name, Type type, int64_t rows_per_chunk) {
  const LibraryLock lock;
  const std::string what = "create dataset " + name;
  const hsize_t none = 0, unlimited = H5S_UNLIMITED, chunk = static_cast<hsize_t>(rows_per_chunk);
  const Handle space{impl_->Own(H5Screate_simple(1, &none, &unlimited), what), H5Sclose};
  const Handle create{impl_->Own(H5Pcreate(H5P_DATASET_CREATE), what), H5Pclose};
  impl_->Check(H5Pset_chunk(create.get(), 1, &chunk), what);
  impl_->Check(H5Pset_fletcher32(create.get()), what);
  const Handle links = impl_->LinkProperties();
  const Handle dataset{impl_->Own(H5Dcreate2(impl_->file.get(), name.c_str(), NativeId(type),
                                             space.get(), links.get(), create.get(), H5P_DEFAULT),
                                  what),
                       H5Dclose};
}

void File::Append(const std::string& name, Type type, const void* data, int64_t count) {
  const LibraryLock lock;
  if (count == 0) return;
  const std::string what = "append to dataset " + name;
  const Handle dataset = impl_->Dataset(name);
  const hsize_t begin =
      static_cast<hsize_t>(impl_->Shape(impl_->SpaceOf(dataset, name), name).at(0));
  const hsize_t added = static_cast<hsize_t>(count), size = begin + added;
  impl_->Check(H5Dset_extent(dataset.get(), &size), what);
  const Handle file_space = impl_->SpaceOf(dataset, name);
  impl_->Check(
      H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, &begin, nullptr, &added, nullptr),
      what);
  const Handle memory{impl_->Own(H5Screate_simple(1, &added, nullptr), what), H5Sclose};
  impl_->Check(
      H5Dwrite(dataset.get(), NativeId(type), memory.get(), file_space.get(), H5P_DEFAULT, data),
      what);
}

bool File::Has(const std::string& name) const {
  const LibraryLock lock;
  // H5Lexists wants every step of the path to exist, so each prefix is asked for.
  for (size_t end = name.find('/', 1); end != std::string::npos; end = name.find('/', end + 1)) {
    if (H5Lexists(impl_->file.get(), name.substr(0, end).c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return name == "/" || H5Lexists(impl_->file.get(), name.c_str(), H5P_DEFAULT) > 0;
}

DatasetInfo File::Info(const std::string& name) const {
  const LibraryLock lock;
  const Handle dataset = impl_->Dataset(name);
  const Handle stored{impl_->Own(H5Dget_type(dataset.get()), "read the type of " + name), H5Tclose};
  for (const TypeEntry& entry : kTypes) {
    if (H5Tequal(stored.get(), NativeId(entry.type)) > 0) {
      impl_->SizeBytes(dataset, name, entry.type);
      return {entry.type, impl_->Shape(impl_->SpaceOf(dataset, name), name)};
    }
  }
  throw FormatError(
      StrCat(path(), ": dataset ", name, " has an element type that tern does not write"));
}

void File::Read(const std::string& name, Type type, void* out, int64_t size_bytes) const {
  const LibraryLock lock;
  const Handle dataset = impl_->Dataset(name);
  impl_->CheckType(dataset, name, type);
  const int64_t stored_bytes = impl_->SizeBytes(dataset, name, type);
  TERN_CHECK_FORMAT(stored_bytes == size_bytes, path(), ": dataset ", name, " holds ", stored_bytes,
                    " bytes; want ", size_bytes);
  if (size_bytes == 0) return;
  if (impl_->IsVirtual(dataset, name)) {
    const std::vector<int64_t> shape = impl_->Shape(impl_->SpaceOf(dataset, name), name);
    return ReadRows(name, type, shape, 0, shape.at(0), out);
  }
  impl_->Check(H5Dread(dataset.get(), NativeId(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, out),
               "read dataset " + name);
}

void File::ReadRange(const std::string& name, Type type, int64_t begin, int64_t count,
                     void* out) const {
  const LibraryLock lock;
  const Handle dataset = impl_->Dataset(name);
  impl_->CheckType(dataset, name, type);
  const Handle space = impl_->SpaceOf(dataset, name);
  const std::vector<int64_t> shape = impl_->Shape(space, name);
  TERN_CHECK_FORMAT(shape.size() == 1 && begin >= 0 && count >= 0 && begin <= shape[0] - count,
                    path(), ": ", count, " elements from ", begin, " on are not in dataset ", name,
                    " with ", shape.empty() ? 0 : shape[0]);
  if (count == 0) return;
  const hsize_t first = static_cast<hsize_t>(begin), size = static_cast<hsize_t>(count);
  const std::string what = "read dataset " + name;
  impl_->Check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &first, nullptr, &size, nullptr),
               what);
  const Handle memory{impl_->Own(H5Screate_simple(1, &size, nullptr), what), H5Sclose};
  impl_->Check(H5Dread(dataset.get(), NativeId(type), memory.get(), space.get(), H5P_DEFAULT, out),
               what);
}

std::vector<std::string> File::ListDatasets(const std::string& group) const {
  const LibraryLock lock;
  struct Collected {
    std::string prefix;
    std::vector<std::string> names;
  } collected{group == "/" ? "/" : group + "/", {}};
  const auto visit = [](hid_t, const char* name, const H5O_info_t* info, void* out) -> herr_t {
    auto* result = static_cast<Collected*>(out);
    if (info->type == H5O_TYPE_DATASET) result->names.push_back(result->prefix + name);
    return 0;
  };
  const Handle root = impl_->Object(group);
  impl_->Check(H5Ovisit2(root.get(), H5_INDEX_NAME, H5_ITER_INC, visit, &collected, H5O_INFO_BASIC),
               "list " + group);
  return std::move(collected.names);
}

void File::Close() {
  const LibraryLock lock;
  if (impl_->access == Access::kWrite)
    impl_->Check(H5Fflush(impl_->file.get(), H5F_SCOPE_GLOBAL), "flush");
  const bool closed = impl_->file.Close();
  impl_->Check(closed ? 0 : -1, "close");
}

}  // namespace tern::h5
