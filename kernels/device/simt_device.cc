// The emulator as a device: its memory is the host's, its launches are done when they return.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/device/device_api.h"

namespace tern::kernels {
namespace {

const char* Open(int index, DeviceInfo* info, void** stream) {
  if (index != 0) return "the emulator is one device; want simt";
  std::snprintf(info->name, sizeof(info->name), "emulator (runs CUDA kernels on the CPU, slowly)");
  *stream = nullptr;
  return nullptr;
}

void Close(void* /*stream*/) {}

const char* Allocate(size_t bytes, void** memory) {
  constexpr size_t kAlignment = 256;  // As cudaMalloc
  *memory = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  return *memory == nullptr ? "out of memory" : nullptr;
}

void Release(void* memory) { std::free(memory); }

const char* Copy(void* to, const void* from, size_t bytes, void* /*stream*/) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return nullptr;
}

const char* Synchronize(void* /*stream*/) { return nullptr; }

}  // namespace

const DeviceApi& SimtDeviceApi() {
  static const DeviceApi api{kDeviceApiVersion, Open, Close, Allocate,    Release,        Allocate,
                             Release,           Copy, Copy,  Synchronize, LinkedKernels()};
  return api;
}

}  // namespace tern::kernels
