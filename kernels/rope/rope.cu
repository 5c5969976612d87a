// Host launcher of the rotary embedding on a GPU.
#include <cuda_runtime.h>

#include "kernels/rope/rope.cuh"
#include "kernels/rope/rope_cuda.h"

namespace tern::kernels {

const char* LaunchRope(const RopeArgs& args, void* stream) {
  if (args.rows == 0) return nullptr;
  RopeKernel<<<args.rows, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace tern::kernels
