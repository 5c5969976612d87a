// Host launcher of the rotary embedding on a GPU.
#include "kernels/rope/rope.cuh"
#include "kernels/rope/rope_cuda.h"
#include "kernels/simt/launch.h"

namespace tern::kernels {

const char* LaunchRope(const RopeArgs& args, void* stream) {
  if (args.rows == 0) return nullptr;
  return simt::LaunchKernel(RopeKernel, {static_cast<unsigned>(args.rows)}, kRowThreads, stream,
                            args);
}

}  // namespace tern::kernels
