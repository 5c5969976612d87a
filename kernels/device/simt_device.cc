// The emulator as a device: its memory is the host's, its launches are done when they return.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "kernels/device/device_api.h"
#include "kernels/simt/launch.h"

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
  if (bytes > 0) simt::Enqueue([=] { std::memcpy(to, from, bytes); });
  return nullptr;
}

const char* Synchronize(void* /*stream*/) {
  return simt::CurrentRecording() == nullptr ? nullptr : "waits for what is being recorded";
}

const char* BeginRecord(void* /*stream*/) {
  if (simt::CurrentRecording() != nullptr) return "a recording is on already";
  simt::CurrentRecording() = new simt::Recording;
  return nullptr;
}

const char* EndRecord(void* /*stream*/, void** recording) {
  *recording = std::exchange(simt::CurrentRecording(), nullptr);
  return *recording == nullptr ? "no recording is on" : nullptr;
}

const char* Replay(void* recording, void* /*stream*/) {
  for (const auto& work : *static_cast<simt::Recording*>(recording)) work();
  return nullptr;
}

void ReleaseRecording(void* recording) { delete static_cast<simt::Recording*>(recording); }

}  // namespace

const DeviceApi& SimtDeviceApi() {
  static const DeviceApi api{kDeviceApiVersion,
                             Open,
                             Close,
                             Allocate,
                             Release,
                             Allocate,
                             Release,
                             Copy,
                             Copy,
                             Synchronize,
                             BeginRecord,
                             EndRecord,
                             Replay,
                             ReleaseRecording,
                             "a reference loop",
                             LinkedKernels()};
  return api;
}

}  // namespace tern::kernels
