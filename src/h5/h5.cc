// See h5.h. Every id is owned by a Handle; every call goes through Check or Own, which turn a
// failure into a typed error with HDF5's innermost message; writes that the system refused are
// found in FileStatus (file_driver.h) after each call. One lock around every public function
// serializes the library, which is not thread-safe as Debian builds it.
#include "h5/h5.h"

#include <hdf5.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "h5/file_driver.h"

namespace tern::h5 {
namespace {

// Held by every public function. The first one prepares the library: it prints nothing (we keep the
// innermost message of its error stack), and does no clean-up at exit, when other statics are gone.
class LibraryLock {
 public:
  LibraryLock() : lock_(Mutex()) {
    static const bool prepared =
        H5dont_atexit() >= 0 && H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
    static_cast<void>(prepared);
  }

 private:
  static std::recursive_mutex& Mutex() {
    static std::recursive_mutex mutex;
    return mutex;
  }
  std::scoped_lock<std::recursive_mutex> lock_;
};

herr_t KeepInnermost(unsigned /*n*/, const H5E_error2_t* error, void* out) {
  if (error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
  return 0;
}

std::string InnermostMessage() {
  std::string message;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, KeepInnermost, &message);
  H5Eclear2(H5E_DEFAULT);
  return message.empty() ? "no reason given" : message;
}

enum class Access { kRead, kWrite };

[[noreturn]] void Fail(Access access, const std::string& path, const std::string& what) {
  const std::string reason = InnermostMessage();
  if (access == Access::kRead) {
    throw FormatError(StrCat(path, ": cannot ", what, ": ", reason,
                             "; the file is damaged or not what it should be"));
  }
  throw ResourceError(
      StrCat(path, ": cannot ", what, ": ", reason, "; is the disk full or the folder read-only?"));
}

// Owns one HDF5 id and closes it with the function of its kind.
class Handle {
 public:
  using Closer = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Closer closer) : id_(id), closer_(closer) {}
  ~Handle() { Reset(); }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), closer_(other.closer_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(closer_, other.closer_);
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  hid_t get() const { return id_; }
  // Closes now; false when HDF5 reports a failure (data not written).
  bool Close() {
    const hid_t id = std::exchange(id_, -1);
    return id < 0 || closer_(id) >= 0;
  }

 private:
  void Reset() {
    if (!Close()) H5Eclear2(H5E_DEFAULT);
  }
  hid_t id_ = -1;
  Closer closer_ = nullptr;
};

struct TypeEntry {
  Type type;
  int64_t size_bytes;
};
constexpr TypeEntry kTypes[] = {{Type::kF32, 4}, {Type::kF64, 8}, {Type::kF16, 2}, {Type::kU8, 1},
                                {Type::kI8, 1},  {Type::kU16, 2}, {Type::kI32, 4}, {Type::kU32, 4},
                                {Type::kI64, 8}, {Type::kU64, 8}};

// IEEE half precision, which HDF5 1.10 has no predefined type for: 1 sign, 5 exponent, 10 mantissa
// bits, bias 15.
hid_t MakeHalf() {
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(half, 15, 10, 5, 0, 10);
  H5Tset_size(half, 2);
  H5Tset_ebias(half, 15);
  return half;
}

hid_t NativeId(Type type) {
  static const hid_t half = MakeHalf();
  switch (type) {
    case Type::kF32:
      return H5T_IEEE_F32LE;
    case Type::kF64:
      return H5T_IEEE_F64LE;
    case Type::kF16:
      return half;
    case Type::kU8:
      return H5T_STD_U8LE;
    case Type::kI8:
      return H5T_STD_I8LE;
    case Type::kU16:
      return H5T_STD_U16LE;
    case Type::kI32:
      return H5T_STD_I32LE;
    case Type::kU32:
      return H5T_STD_U32LE;
    case Type::kI64:
      return H5T_STD_I64LE;
    case Type::kU64:
      return H5T_STD_U64LE;
  }
  __builtin_unreachable();
}

// Whole trailing dimensions as far as `elements` reach; HDF5 wants chunks below 4 GiB, whatever the
// row length is.
std::vector<hsize_t> ChunkShape(const std::vector<hsize_t>& dims, int64_t elements) {
  std::vector<hsize_t> chunk(dims.size(), 1);
  hsize_t left = static_cast<hsize_t>(std::max<int64_t>(elements, 1));
  for (size_t i = dims.size(); i-- > 0 && left > 1;) {
    chunk[i] = std::min(left, dims[i]);
    left = chunk[i] == dims[i] ? left / dims[i] : 1;
  }
  return chunk;
}

std::vector<hsize_t> Dims(const std::vector<int64_t>& shape) {
  return {shape.begin(), shape.end()};
}

}  // namespace

int64_t SizeOf(Type type) {
  for (const TypeEntry& entry : kTypes) {
    if (entry.type == type) return entry.size_bytes;
  }
  __builtin_unreachable();
}

struct File::Impl {
  std::string path;
  Access access;
  FileStatus status;  // Before `file`: closing it reports here.
  Handle file;

  Impl(std::string file_path, Access file_access)
      : path(std::move(file_path)), access(file_access) {}

  hid_t Own(hid_t id, const std::string& what) const {
    Check(id < 0 ? -1 : 0, what);
    return id;
  }
  void Check(herr_t result, const std::string& what) const {
    CheckSystem(status.write_error, what);
    if (result >= 0) return;
    CheckSystem(status.read_error, what);
    Fail(access, path, what);
  }
  // The system refused a read or write: its own words say more than HDF5's.
  void CheckSystem(int error, const std::string& what) const {
    if (error == 0) return;
    H5Eclear2(H5E_DEFAULT);
    throw ResourceError(StrCat(path, ": cannot ", what, ": ", std::strerror(error),
                               access == Access::kWrite
                                   ? "; the file is incomplete: free some space and write it again"
                                   : "; look at the disk"));
  }
  // Bytes of a dataset, checked against the file: tern writes no holes and does not compress, so a
  // dataset larger than its file is damaged, and must not make a reader allocate. Virtual datasets
  // live in other files.
  int64_t SizeBytes(const Handle& dataset, const std::string& name, Type type) const {
    const Handle create{Own(H5Dget_create_plist(dataset.get()), "read the layout of " + name),
                        H5Pclose};
    const bool is_virtual = H5Pget_layout(create.get()) == H5D_VIRTUAL;
    hsize_t file_bytes = 0;
    Check(H5Fget_filesize(file.get(), &file_bytes), "read the size");
    const int64_t limit = is_virtual ? INT64_MAX : static_cast<int64_t>(file_bytes);
    int64_t bytes = SizeOf(type);
    bool fits = true;
    const std::vector<int64_t> shape = Shape(SpaceOf(dataset, name), name);
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
    for (const int64_t size : shape)
      fits = fits && size > 0 && !__builtin_mul_overflow(bytes, size, &bytes);
    TERN_CHECK_FORMAT(fits && bytes <= limit, path, ": dataset ", name,
                      " claims more elements than a file of ", file_bytes,
                      " bytes can hold; the file is damaged");
    return bytes;
  }
  // An attribute that is one value; its type.
  Handle ScalarAttribute(const Handle& object, const std::string& key,
                         const std::string& what) const {
    Handle attribute{Own(H5Aopen(object.get(), key.c_str(), H5P_DEFAULT), what), H5Aclose};
    const Handle space{Own(H5Aget_space(attribute.get()), what), H5Sclose};
    TERN_CHECK_FORMAT(H5Sget_simple_extent_npoints(space.get()) == 1, path, ": cannot ", what,
                      ": it is not a single value");
    return attribute;
  }
  Handle Dataset(const std::string& name) const {
    return {Own(H5Dopen2(file.get(), name.c_str(), H5P_DEFAULT), "open dataset " + name), H5Dclose};
  }
  Handle Object(const std::string& name) const {
    return {Own(H5Oopen(file.get(), name.c_str(), H5P_DEFAULT), "open " + name), H5Oclose};
  }
  Handle SpaceOf(const Handle& dataset, const std::string& name) const {
    return {Own(H5Dget_space(dataset.get()), "read the shape of " + name), H5Sclose};
  }
  Handle LinkProperties() const {
    Handle links{Own(H5Pcreate(H5P_LINK_CREATE), "make properties"), H5Pclose};
    Check(H5Pset_create_intermediate_group(links.get(), 1), "make properties");
    return links;
  }
  std::vector<int64_t> Shape(const Handle& space, const std::string& name) const {
    const int rank = H5Sget_simple_extent_ndims(space.get());
    Check(rank, "read the shape of " + name);
    std::vector<hsize_t> dims(static_cast<size_t>(rank));
    Check(H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr),
          "read the shape of " + name);
    return {dims.begin(), dims.end()};
  }
  void CheckType(const Handle& dataset, const std::string& name, Type type) const {
    const Handle stored{Own(H5Dget_type(dataset.get()), "read the type of " + name), H5Tclose};
    if (H5Tequal(stored.get(), NativeId(type)) <= 0) {
      throw FormatError(
          StrCat(path, ": dataset ", name, " has another element type than this reader wants"));
    }
  }
};

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

File File::Create(const std::string& path) {
  const LibraryLock lock;
  auto impl = std::make_unique<Impl>(path, Access::kWrite);
  const Handle access{impl->Own(MakeFileAccess(&impl->status), "create"), H5Pclose};
  const hid_t id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get());
  if (id < 0) impl->CheckSystem(impl->status.open_error, "create");
  impl->file = {impl->Own(id, "create"), H5Fclose};
  return File(std::move(impl));
}

File File::OpenForReading(const std::string& path) {
  const LibraryLock lock;
  auto impl = std::make_unique<Impl>(path, Access::kRead);
  TERN_CHECK_INPUT(!std::filesystem::is_directory(path), path, " is a folder; want an HDF5 file");
  const Handle access{impl->Own(MakeFileAccess(&impl->status), "open"), H5Pclose};
  const hid_t id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get());
  if (id < 0 && impl->status.open_error != 0) {
    H5Eclear2(H5E_DEFAULT);
    throw InputError(StrCat("cannot open ", path, ": ", std::strerror(impl->status.open_error)));
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
                    path(), ": elements [", begin, ", ", begin + count, ") of dataset ", name,
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

void File::SetAttribute(const std::string& object, const std::string& key,
                        const std::string& value) {
  const LibraryLock lock;
  const std::string what = "write attribute " + key + " of " + object;
  const Handle target = impl_->Object(object);
  const Handle type{impl_->Own(H5Tcopy(H5T_C_S1), what), H5Tclose};
  impl_->Check(H5Tset_size(type.get(), std::max<size_t>(value.size(), 1)), what);
  impl_->Check(H5Tset_cset(type.get(), H5T_CSET_UTF8), what);
  impl_->Check(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), what);
  const Handle space{impl_->Own(H5Screate(H5S_SCALAR), what), H5Sclose};
  const Handle attribute{impl_->Own(H5Acreate2(target.get(), key.c_str(), type.get(), space.get(),
                                               H5P_DEFAULT, H5P_DEFAULT),
                                    what),
                         H5Aclose};
  const std::string padded = value.empty() ? std::string(1, '\0') : value;
  impl_->Check(H5Awrite(attribute.get(), type.get(), padded.data()), what);
}

void File::SetAttribute(const std::string& object, const std::string& key, int64_t value) {
  const LibraryLock lock;
  const std::string what = "write attribute " + key + " of " + object;
  const Handle target = impl_->Object(object);
  const Handle space{impl_->Own(H5Screate(H5S_SCALAR), what), H5Sclose};
  const Handle attribute{impl_->Own(H5Acreate2(target.get(), key.c_str(), H5T_STD_I64LE,
                                               space.get(), H5P_DEFAULT, H5P_DEFAULT),
                                    what),
                         H5Aclose};
  impl_->Check(H5Awrite(attribute.get(), H5T_STD_I64LE, &value), what);
}

std::string File::StringAttribute(const std::string& object, const std::string& key) const {
  const LibraryLock lock;
  const std::string what = "read attribute " + key + " of " + object;
  const Handle target = impl_->Object(object);
  const Handle attribute = impl_->ScalarAttribute(target, key, what);
  const Handle type{impl_->Own(H5Aget_type(attribute.get()), what), H5Tclose};
  const bool fixed = H5Tget_class(type.get()) == H5T_STRING && H5Tis_variable_str(type.get()) == 0;
  TERN_CHECK_FORMAT(fixed, path(), ": attribute ", key, " of ", object,
                    " is not a string of fixed length");
  hsize_t file_bytes = 0;
  impl_->Check(H5Fget_filesize(impl_->file.get(), &file_bytes), what);
  const size_t size = H5Tget_size(type.get());
  TERN_CHECK_FORMAT(size > 0 && size <= file_bytes, path(), ": cannot ", what, ": it claims ", size,
                    " bytes");
  std::string value(size, '\0');
  impl_->Check(H5Aread(attribute.get(), type.get(), value.data()), what);
  if (value.size() == 1 && value[0] == '\0') value.clear();  // How an empty string is stored.
  return value;
}

int64_t File::IntAttribute(const std::string& object, const std::string& key) const {
  const LibraryLock lock;
  const std::string what = "read attribute " + key + " of " + object;
  const Handle target = impl_->Object(object);
  const Handle attribute = impl_->ScalarAttribute(target, key, what);
  const Handle type{impl_->Own(H5Aget_type(attribute.get()), what), H5Tclose};
  TERN_CHECK_FORMAT(H5Tequal(type.get(), H5T_STD_I64LE) > 0, path(), ": cannot ", what,
                    ": it is not an int64");
  int64_t value = 0;
  impl_->Check(H5Aread(attribute.get(), H5T_STD_I64LE, &value), what);
  return value;
}

bool File::HasAttribute(const std::string& object, const std::string& key) const {
  const LibraryLock lock;
  return Has(object) &&
         H5Aexists_by_name(impl_->file.get(), object.c_str(), key.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> File::AttributeNames(const std::string& object) const {
  const LibraryLock lock;
  std::vector<std::string> names;
  const Handle target = impl_->Object(object);
  const auto visit = [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->push_back(name);
    return 0;
  };
  hsize_t index = 0;
  impl_->Check(H5Aiterate2(target.get(), H5_INDEX_NAME, H5_ITER_INC, &index, visit, &names),
               "list attributes of " + object);
  return names;
}

void File::Close() {
  const LibraryLock lock;
  if (impl_->access == Access::kWrite)
    impl_->Check(H5Fflush(impl_->file.get(), H5F_SCOPE_GLOBAL), "flush");
  const bool closed = impl_->file.Close();
  impl_->Check(closed ? 0 : -1, "close");
}

}  // namespace tern::h5
