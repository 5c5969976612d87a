// Host launcher of the highest logits on a GPU.
#include "kernels/simt/launch.h"
#include "kernels/top_k/argmax.cuh"
#include "kernels/top_k/top_k.cuh"

namespace tern::kernels {

const char* LaunchTopK(const TopKArgs& args, void* stream) {
  if (args.k < 1 || args.k > kTopKMost || args.k > args.n)
    return "top-k: k must be 1 to 256, and not above the number of logits";
  if (args.k == 1)
    return simt::LaunchKernel(ArgmaxKernel, {static_cast<unsigned>(args.m)}, kRowThreads, stream,
                              args);
  return simt::LaunchKernel(TopKKernel, {static_cast<unsigned>(args.m)}, kTopKThreads, stream,
                            args);
}

}  // namespace tern::kernels
