// Host launcher of the rotary embedding on a GPU.
#include <cuda_runtime.h>

#include "kernels/common/cuda_error.h"
#include "kernels/rope/rope.cuh"
#include "kernels/rope/rope_cuda.h"

namespace tern::kernels {

const char* LaunchRope(const RopeArgs& args, void* stream) {
  if (args.rows == 0) return nullptr;
  RopeKernel<<<args.rows, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  return ErrorText(cudaGetLastError());
}

}  // namespace tern::kernels
