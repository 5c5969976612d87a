// Attributes of h5.h: texts of fixed length and 64-bit integers.
#include <hdf5.h>

#include "h5/h5_impl.h"

namespace tern::h5 {

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

}  // namespace tern::h5
