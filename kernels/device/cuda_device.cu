// A CUDA device: memory, copies, one stream. Needs the CUDA Toolkit; in libtern_kernels_cuda.so.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>

#include "kernels/common/cuda_error.h"
#include "kernels/device/device_api.h"

namespace tern::kernels {
namespace {

constexpr int kOldestMajor = 8;  // Kernels are compiled for sm_80 and later.

const char* Open(int index, DeviceInfo* info, void** stream) {
  static char text[256];
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted != cudaSuccess || count == 0) {
    std::snprintf(text, sizeof(text), "no CUDA device can be used (%s)",
                  counted != cudaSuccess ? cudaGetErrorString(counted) : "the driver lists none");
    return text;
  }
  if (index < 0 || index >= count) {
    std::snprintf(text, sizeof(text), "there is no CUDA device %d; want 0 to %d", index, count - 1);
    return text;
  }
  cudaDeviceProp properties;
  if (const char* error = ErrorText(cudaGetDeviceProperties(&properties, index))) return error;
  std::snprintf(info->name, sizeof(info->name), "%s", properties.name);
  info->major = properties.major;
  info->minor = properties.minor;
  if (properties.major < kOldestMajor) {
    std::snprintf(text, sizeof(text), "%s has compute capability %d.%d; want 8.0 or later",
                  properties.name, properties.major, properties.minor);
    return text;
  }
  if (const char* error = ErrorText(cudaSetDevice(index))) return error;
  size_t free_bytes = 0, total_bytes = 0;
  if (const char* error = ErrorText(cudaMemGetInfo(&free_bytes, &total_bytes))) return error;
  info->free_bytes = static_cast<int64_t>(free_bytes);
  info->total_bytes = static_cast<int64_t>(total_bytes);
  cudaStream_t queue = nullptr;
  const char* error = ErrorText(cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking));
  *stream = queue;
  return error;
}

void Close(void* stream) { cudaStreamDestroy(static_cast<cudaStream_t>(stream)); }

const char* Allocate(size_t bytes, void** memory) { return ErrorText(cudaMalloc(memory, bytes)); }
void Release(void* memory) { cudaFree(memory); }

const char* AllocateHost(size_t bytes, void** memory) {
  return ErrorText(cudaMallocHost(memory, bytes));
}
void ReleaseHost(void* memory) { cudaFreeHost(memory); }

const char* CopyIn(void* to, const void* from, size_t bytes, void* stream) {
  return ErrorText(
      cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, static_cast<cudaStream_t>(stream)));
}

const char* CopyOut(void* to, const void* from, size_t bytes, void* stream) {
  return ErrorText(
      cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, static_cast<cudaStream_t>(stream)));
}

const char* Synchronize(void* stream) {
  return ErrorText(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

// A recording is a CUDA graph, ready to launch.
const char* BeginRecord(void* stream) {
  return ErrorText(cudaStreamBeginCapture(static_cast<cudaStream_t>(stream),
                                          cudaStreamCaptureModeThreadLocal));
}

const char* EndRecord(void* stream, void** recording) {
  cudaGraph_t graph = nullptr;
  if (const char* error =
          ErrorText(cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &graph)))
    return error;
  cudaGraphExec_t ready = nullptr;
  const char* error = ErrorText(cudaGraphInstantiate(&ready, graph, 0));
  cudaGraphDestroy(graph);
  *recording = ready;
  return error;
}

const char* Replay(void* recording, void* stream) {
  return ErrorText(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recording),
                                   static_cast<cudaStream_t>(stream)));
}

void ReleaseRecording(void* recording) {
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recording));
}

}  // namespace
}  // namespace tern::kernels

extern "C" const tern::kernels::DeviceApi* TernCudaDeviceApi() {
  using namespace tern::kernels;  // NOLINT: the functions above
  static const DeviceApi api{kDeviceApiVersion,
                             Open,
                             Close,
                             Allocate,
                             Release,
                             AllocateHost,
                             ReleaseHost,
                             CopyIn,
                             CopyOut,
                             Synchronize,
                             BeginRecord,
                             EndRecord,
                             Replay,
                             ReleaseRecording,
                             "cuBLASLt",
                             LinkedKernels()};
  return &api;
}
