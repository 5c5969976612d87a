// One way to launch a kernel for both compilers: on the device's queue under nvcc, in the emulator
// elsewhere. So the host code of a launch, too, is one source that the tests run.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include "kernels/common/cuda_error.h"
#else
#include "kernels/simt/simt.h"
#endif

namespace tern::simt {

struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

#if !defined(__CUDACC__)
// How LaunchKernel runs kernels from now on, for tests: schedules and planted faults.
inline LaunchOptions& EmulatorOptions() {
  static LaunchOptions options;
  return options;
}
#endif

// Queues kernel(args...) with `threads` threads a block. `stream` is a cudaStream_t or null.
// Returns an error text, or null when all is well.
template <class... Parameters, class... Args>
const char* LaunchKernel(void (*kernel)(Parameters...), Grid grid, unsigned threads, void* stream,
                         const Args&... args) {
#if defined(__CUDACC__)
  kernel<<<dim3(grid.x, grid.y, grid.z), threads, 0, static_cast<cudaStream_t>(stream)>>>(args...);
  return kernels::ErrorText(cudaGetLastError());
#else
  (void)stream;
  Launch(
      {grid.x, grid.y, grid.z}, {threads}, [&] { kernel(args...); }, EmulatorOptions());
  return nullptr;
#endif
}

}  // namespace tern::simt
