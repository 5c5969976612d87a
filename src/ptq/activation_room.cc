// See activation_room.h.
#include "ptq/activation_room.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"
#include "base/file.h"

namespace tern::ptq {

at::Tensor ActivationRoom::New(const std::vector<int64_t>& shape) const {
  if (!OnDisk()) return at::empty(shape, at::kFloat);
  size_t bytes = sizeof(float);
  for (const int64_t extent : shape) bytes *= static_cast<size_t>(extent);
  const std::string path = StrCat(folder_, "/activations.tmp.", ::getpid());
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) throw ResourceError(StrCat("cannot make ", path, ": ", std::strerror(errno)));
  ::unlink(path.c_str());
  // Reserved now: writing through a mapping where the disk is full would end the process.
  const int error = ::posix_fallocate(file, 0, static_cast<off_t>(bytes));
  void* address =
      error != 0 ? MAP_FAILED : ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int why = error != 0 ? error : errno;
  ::close(file);
  if (address == MAP_FAILED) {
    throw ResourceError(StrCat("no room for ", bytes, " bytes of activations in ", folder_, ": ",
                               std::strerror(why),
                               "; want a larger disk, or a larger --memory to keep them there"));
  }
  return at::from_blob(
      address, shape, [bytes](void* p) { ::munmap(p, bytes); }, at::TensorOptions(at::kFloat));
}

void ActivationRoom::Drop(const at::Tensor& part) const {
  if (!OnDisk()) return;
  TERN_CHECK(part.is_contiguous(), "a part of activations that is not contiguous");
  DropMappedPages({static_cast<const std::byte*>(part.const_data_ptr()), part.nbytes()});
}

}  // namespace tern::ptq
