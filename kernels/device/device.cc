// See device.h.
#include "kernels/device/device.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/error.h"

namespace tern::kernels {
namespace {

constexpr char kCudaLibrary[] = "libtern_kernels_cuda.so";

// The folder of this program, with a slash at its end; empty where the system does not say.
std::string ProgramFolder() {
  std::string path(4096, '\0');
  const ssize_t size = readlink("/proc/self/exe", path.data(), path.size());
  path.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return path.substr(0, path.rfind('/') + 1);
}

std::shared_ptr<void> OpenCudaLibrary() {
  std::string reasons;
  const std::string folder = ProgramFolder();
  for (const std::string& path :
       {folder + kCudaLibrary, folder + "../lib/" + kCudaLibrary, std::string(kCudaLibrary)}) {
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL))
      return std::shared_ptr<void>(library, [](void* p) { dlclose(p); });
    reasons += StrCat(reasons.empty() ? " " : "; ", dlerror());
  }
  throw ResourceError(
      StrCat("device cuda: ", kCudaLibrary,
             " cannot be loaded; build it with nvcc (cmake --preset cuda), put it "
             "beside the program, and see that the CUDA runtime is installed. The loader says:",
             reasons));
}

const DeviceApi& CudaApi(void* library) {
  void* symbol = dlsym(library, kCudaApiSymbol);
  if (symbol == nullptr)
    throw ResourceError(
        StrCat("device cuda: ", kCudaLibrary, " has no ", kCudaApiSymbol, "; build it again"));
  const DeviceApi& api = *reinterpret_cast<DeviceApiFunction>(symbol)();
  if (api.version != kDeviceApiVersion)
    throw ResourceError(StrCat("device cuda: ", kCudaLibrary, " has interface ", api.version,
                               ", this program ", kDeviceApiVersion, "; build both again"));
  return api;
}

// N of "cuda:N", 0 of "cuda".
int CudaIndex(std::string_view name) {
  constexpr std::string_view kCuda = "cuda", kPrefix = "cuda:";
  if (name == kCuda) return 0;
  int index = -1;
  const char* end = name.data() + name.size();
  if (name.starts_with(kPrefix) && name.size() > kPrefix.size() &&
      std::from_chars(name.data() + kPrefix.size(), end, index).ptr == end && index >= 0)
    return index;
  throw UsageError(StrCat("device \"", name, "\"; want cpu, simt, cuda or cuda:INDEX"));
}

}  // namespace

std::unique_ptr<Device> Device::Open(std::string_view name) {
  if (name == "simt") {
#if defined(TERN_HAVE_SIMT)
    return std::unique_ptr<Device>(new Device("simt", SimtDeviceApi(), 0, nullptr));
#else
    throw ResourceError(
        "device simt: this program was built without the emulator; install libboost-context-dev "
        "and build again");
#endif
  }
  const int index = CudaIndex(name);
  std::shared_ptr<void> library = OpenCudaLibrary();
  const DeviceApi& api = CudaApi(library.get());
  return std::unique_ptr<Device>(new Device(std::string(name), api, index, std::move(library)));
}

Device::Device(std::string name, const DeviceApi& api, int index, std::shared_ptr<void> library)
    : name_(std::move(name)), api_(api), library_(std::move(library)) {
  Check("open", api_.open(index, &info_, &stream_));
}

Device::~Device() { api_.close(stream_); }

DeviceMemory Device::Allocate(int64_t size_bytes) {
  void* memory = nullptr;
  const int64_t size = std::max<int64_t>(size_bytes, 1);
  const char* error = api_.allocate(static_cast<size_t>(size), &memory);
  if (error != nullptr)
    throw ResourceError(StrCat("device ", name_, " (", info_.name, "): ", size,
                               " bytes cannot be allocated: ", error,
                               ". Take a shorter context or a smaller model"));
  return {memory, size, api_.release};
}

DeviceMemory Device::AllocateHost(int64_t size_bytes) {
  void* memory = nullptr;
  const int64_t size = std::max<int64_t>(size_bytes, 1);
  Check("host memory", api_.allocate_host(static_cast<size_t>(size), &memory));
  return {memory, size, api_.release_host};
}

void Device::CopyIn(void* to, const void* from, int64_t size_bytes) {
  Check("copy in", api_.copy_in(to, from, static_cast<size_t>(size_bytes), stream_));
}

void Device::CopyOut(void* to, const void* from, int64_t size_bytes) {
  Check("copy out", api_.copy_out(to, from, static_cast<size_t>(size_bytes), stream_));
}

void Device::Synchronize() { Check("synchronize", api_.synchronize(stream_)); }

void Device::Check(const char* what, const char* error) const {
  if (error != nullptr) throw ResourceError(StrCat("device ", name_, ": ", what, ": ", error));
}

}  // namespace tern::kernels
