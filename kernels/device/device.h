// A device that runs kernels: "simt" (CUDA kernels in the emulator, for tests; slow) or "cuda"
// (libtern_kernels_cuda.so beside the program or on the library path; "cuda:1" for the second one).
// One stream in order. Everything that fails is a ResourceError (exit code 5) with the device's own
// words. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/device/device_api.h"

namespace tern::kernels {

class Device;

// Memory of a device, or of the host for its copies; freed with this. The device must outlive it.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(void* memory, int64_t size_bytes, void (*release)(void*))
      : memory_(memory, release), size_bytes_(size_bytes) {}
  char* data() const { return static_cast<char*>(memory_.get()); }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  std::unique_ptr<void, void (*)(void*)> memory_{nullptr, [](void*) {}};
  int64_t size_bytes_ = 0;
};

// Work of a device that was recorded once and is queued again as a whole (Device::Record): a CUDA
// graph, or a list of launches in the emulator. The device must outlive it.
class DeviceRecording {
 public:
  DeviceRecording() = default;
  DeviceRecording(void* recording, void (*release)(void*)) : recording_(recording, release) {}
  void* get() const { return recording_.get(); }

 private:
  std::unique_ptr<void, void (*)(void*)> recording_{nullptr, [](void*) {}};
};

class Device {
 public:
  // Throws UsageError for a name that is none, ResourceError where the device cannot be used.
  static std::unique_ptr<Device> Open(std::string_view name);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& name() const { return name_; }
  const DeviceInfo& info() const { return info_; }
  const DeviceKernels& kernels() const { return api_.kernels; }
  void* stream() const { return stream_; }

  // At least one byte; aligned to 256 bytes.
  DeviceMemory Allocate(int64_t size_bytes);
  DeviceMemory AllocateHost(int64_t size_bytes);
  // Waits: `from` may be reused at once.
  void CopyIn(void* to, const void* from, int64_t size_bytes);
  // `from`, memory of AllocateHost, stays as it is until Synchronize.
  void CopyInLater(void* to, const void* from, int64_t size_bytes);
  // `to` holds the bytes after Synchronize.
  void CopyOut(void* to, const void* from, int64_t size_bytes);
  void Synchronize();

  // Does not do what `queue` queues, but keeps it: launches and copies with their pointers and
  // numbers of now. `queue` must not wait, nor run a kernel for the first time (its code may have
  // to be loaded, which cannot be recorded).
  DeviceRecording Record(const std::function<void()>& queue);
  void Replay(const DeviceRecording& recording);
  // What multiplies dense matrices: "cuBLASLt", "a reference loop".
  const char* dense_products() const { return api_.dense_products; }

  // Throws ResourceError when a launcher returned an error text: Check("attention", launcher(...)).
  void Check(const char* what, const char* error) const;

 private:
  Device(std::string name, const DeviceApi& api, int index, std::shared_ptr<void> library);

  std::string name_;
  const DeviceApi& api_;
  std::shared_ptr<void> library_;  // Of the plug-in; closed last
  DeviceInfo info_;
  void* stream_ = nullptr;
};

}  // namespace tern::kernels
