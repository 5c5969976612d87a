// Host launcher of RMSNorm on a GPU.
#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/rms_norm/rms_norm_cuda.h"
#include "kernels/simt/launch.h"

namespace tern::kernels {

const char* LaunchRmsNorm(const float* x, const float* g, int64_t m, int64_t d, float eps, float* y,
                          void* stream) {
  if (m == 0 || d == 0) return nullptr;
  return simt::LaunchKernel(RmsNormKernel, {static_cast<unsigned>(m)}, kRowThreads, stream, x, g,
                            static_cast<int>(d), eps, y);
}

}  // namespace tern::kernels
