// One way to launch a kernel for both compilers: on the device's queue under nvcc, in the emulator
// elsewhere. So the host code of a launch, too, is one source that the tests run.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include "kernels/common/cuda_error.h"
#else
#include <functional>
#include <utility>
#include <vector>

#include "kernels/simt/simt.h"
#endif

namespace tern::simt {

struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

#if !defined(__CUDACC__)
// Work of the emulator's queue. As on a device, what is queued while a recording is on is kept
// there instead of being done (CUDA graphs).
using Recording = std::vector<std::function<void()>>;
inline Recording*& CurrentRecording() {
  static Recording* recording = nullptr;
  return recording;
}
template <class Work>
void Enqueue(Work work) {
  if (Recording* recording = CurrentRecording()) {
    recording->push_back(std::move(work));
  } else {
    work();
  }
}

// How LaunchKernel runs kernels from now on, for tests: schedules and planted faults.
inline LaunchOptions& EmulatorOptions() {
  static LaunchOptions options;
  return options;
}
#endif

// Queues kernel(args...) with `threads` threads a block and `shared_bytes` of dynamic shared
// memory. `stream` is a cudaStream_t or null. Of no block at all, which CUDA refuses to launch,
// there is nothing to do. Returns an error text, or null when all is well.
template <class... Parameters, class... Args>
const char* LaunchKernelShared(void (*kernel)(Parameters...), Grid grid, unsigned threads,
                               int shared_bytes, void* stream, const Args&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return nullptr;
#if defined(__CUDACC__)
  constexpr int kWithoutAsking = 48 << 10;
  if (shared_bytes > kWithoutAsking) {
    // Once a kernel and device would do; asking again costs little.
    const cudaError_t allowed =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (allowed != cudaSuccess) return kernels::ErrorText(allowed);
  }
  kernel<<<dim3(grid.x, grid.y, grid.z), threads, static_cast<size_t>(shared_bytes),
           static_cast<cudaStream_t>(stream)>>>(args...);
  return kernels::ErrorText(cudaGetLastError());
#else
  (void)stream;
  Enqueue([=] {  // Arguments by value, as a launch takes them
    LaunchOptions options = EmulatorOptions();
    options.dynamic_shared_bytes = shared_bytes;
    Launch(
        {grid.x, grid.y, grid.z}, {threads}, [&] { kernel(args...); }, options);
  });
  return nullptr;
#endif
}

// The same without dynamic shared memory.
template <class... Parameters, class... Args>
const char* LaunchKernel(void (*kernel)(Parameters...), Grid grid, unsigned threads, void* stream,
                         const Args&... args) {
  return LaunchKernelShared(kernel, grid, threads, 0, stream, args...);
}

}  // namespace tern::simt
