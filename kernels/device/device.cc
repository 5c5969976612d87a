// See device.h.
#include "kernels/device/device.h"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/error.h"
#include "base/plugin.h"

namespace tern::kernels {
namespace {

constexpr char kCudaLibrary[] = "libtern_kernels_cuda.so";

std::shared_ptr<void> OpenCudaLibrary() {
  std::string reasons;
  if (void* library = OpenPlugin(kCudaLibrary, RTLD_NOW | RTLD_LOCAL, &reasons))
    return std::shared_ptr<void>(library, [](void* p) { dlclose(p); });
  throw ResourceError(
      StrCat("device cuda: ", kCudaLibrary,
             " cannot be loaded; build it with nvcc (cmake --preset cuda), put it "
             "beside the program, and see that the CUDA runtime is installed. The loader says: ",
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
  CopyInLater(to, from, size_bytes);
  Synchronize();
}

void Device::CopyInLater(void* to, const void* from, int64_t size_bytes) {
  Check("copy in", api_.copy_in(to, from, static_cast<size_t>(size_bytes), stream_));
}

void Device::CopyOut(void* to, const void* from, int64_t size_bytes) {
  Check("copy out", api_.copy_out(to, from, static_cast<size_t>(size_bytes), stream_));
}

void Device::Synchronize() { Check("synchronize", api_.synchronize(stream_)); }

DeviceRecording Device::Record(const std::function<void()>& queue) {
  void* recording = nullptr;
  Check("begin of a recording", api_.begin_record(stream_));
  try {
    queue();
  } catch (...) {  // The stream would stay in the recording
    if (api_.end_record(stream_, &recording) == nullptr) api_.release_recording(recording);
    throw;
  }
  Check("end of a recording", api_.end_record(stream_, &recording));
  return {recording, api_.release_recording};
}

void Device::Replay(const DeviceRecording& recording) {
  Check("replay", api_.replay(recording.get(), stream_));
}

void Device::Check(const char* what, const char* error) const {
  if (error != nullptr) throw ResourceError(StrCat("device ", name_, ": ", what, ": ", error));
}

}  // namespace tern::kernels
