// Host launcher of the activation quantizer on a GPU.
#include "kernels/absmax_quantize/absmax_quantize.cuh"
#include "kernels/absmax_quantize/absmax_quantize_cuda.h"
#include "kernels/simt/launch.h"

namespace tern::kernels {

const char* LaunchAbsmaxQuantize(const AbsmaxQuantizeArgs& args, void* stream) {
  if (args.m == 0) return nullptr;
  return simt::LaunchKernel(AbsmaxQuantizeKernel, {static_cast<unsigned>(args.m)}, kRowThreads,
                            stream, args);
}

}  // namespace tern::kernels
