// Inside of src/h5 only: handles that own HDF5 ids, the checks around every call, and File's state.
// Not for other modules; they use h5.h.
#pragma once

#include <hdf5.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "h5/file_driver.h"
#include "h5/h5.h"

namespace tern::h5 {

// Held by every public function. The first one prepares the library: it prints nothing (we keep the
// innermost message of its error stack), and does no clean-up at exit, when other statics are gone.
class LibraryLock {
 public:
  LibraryLock() : lock_(Mutex()) {
    static const bool stays = H5dont_atexit() >= 0;
    // A thread-safe build of HDF5 has an error stack for each thread.
    thread_local const bool silent = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
    static_cast<void>(stays && silent);
  }

 private:
  static std::recursive_mutex& Mutex() {
    static std::recursive_mutex mutex;
    return mutex;
  }
  std::scoped_lock<std::recursive_mutex> lock_;
};

inline herr_t KeepInnermost(unsigned /*n*/, const H5E_error2_t* error, void* out) {
  if (error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
  return 0;
}

inline std::string InnermostMessage() {
  std::string message;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, KeepInnermost, &message);
  H5Eclear2(H5E_DEFAULT);
  return message.empty() ? "no reason given" : message;
}

enum class Access { kRead, kWrite };

[[noreturn]] inline void Fail(Access access, const std::string& path, const std::string& what) {
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
inline constexpr TypeEntry kTypes[] = {
    {Type::kF32, 4}, {Type::kF64, 8}, {Type::kF16, 2}, {Type::kU8, 1},  {Type::kI8, 1},
    {Type::kU16, 2}, {Type::kI32, 4}, {Type::kU32, 4}, {Type::kI64, 8}, {Type::kU64, 8}};

// IEEE half precision, which HDF5 1.10 has no predefined type for: 1 sign, 5 exponent, 10 mantissa
// bits, bias 15.
inline hid_t MakeHalf() {
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(half, 15, 10, 5, 0, 10);
  H5Tset_size(half, 2);
  H5Tset_ebias(half, 15);
  return half;
}

inline hid_t NativeId(Type type) {
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
inline std::vector<hsize_t> ChunkShape(const std::vector<hsize_t>& dims, int64_t elements) {
  std::vector<hsize_t> chunk(dims.size(), 1);
  hsize_t left = static_cast<hsize_t>(std::max<int64_t>(elements, 1));
  for (size_t i = dims.size(); i-- > 0 && left > 1;) {
    chunk[i] = std::min(left, dims[i]);
    left = chunk[i] == dims[i] ? left / dims[i] : 1;
  }
  return chunk;
}

inline std::vector<hsize_t> Dims(const std::vector<int64_t>& shape) {
  return {shape.begin(), shape.end()};
}

struct File::Impl {
  std::string path;
  Access access;
  std::shared_ptr<FileStatus> status = std::make_shared<FileStatus>();
  Handle file;

  Impl(std::string file_path, Access file_access)
      : path(std::move(file_path)), access(file_access) {}

  hid_t Own(hid_t id, const std::string& what) const {
    Check(id < 0 ? -1 : 0, what);
    return id;
  }
  void Check(herr_t result, const std::string& what) const {
    CheckSystem(status->write_error, what);
    if (result >= 0) return;
    CheckSystem(status->read_error, what);
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
  bool IsVirtual(const Handle& dataset, const std::string& name) const {
    const Handle create{Own(H5Dget_create_plist(dataset.get()), "read the layout of " + name),
                        H5Pclose};
    return H5Pget_layout(create.get()) == H5D_VIRTUAL;
  }
  // Bytes of a dataset, checked against the file: tern writes no holes and does not compress, so a
  // dataset larger than its file is damaged, and must not make a reader allocate. Virtual datasets
  // live in other files.
  int64_t SizeBytes(const Handle& dataset, const std::string& name, Type type) const {
    const bool is_virtual = IsVirtual(dataset, name);
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

}  // namespace tern::h5
