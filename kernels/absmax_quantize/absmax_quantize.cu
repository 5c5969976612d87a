// Host launcher of the activation quantizer on a GPU.
#include <cuda_runtime.h>

#include "kernels/absmax_quantize/absmax_quantize.cuh"
#include "kernels/absmax_quantize/absmax_quantize_cuda.h"
#include "kernels/common/cuda_error.h"

namespace tern::kernels {

const char* LaunchAbsmaxQuantize(const AbsmaxQuantizeArgs& args, void* stream) {
  if (args.m == 0) return nullptr;
  AbsmaxQuantizeKernel<<<args.m, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  return ErrorText(cudaGetLastError());
}

}  // namespace tern::kernels
