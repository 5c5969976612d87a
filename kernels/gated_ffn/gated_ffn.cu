// Host launcher of the gate on a GPU.
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/common/cuda_error.h"
#include "kernels/gated_ffn/gated_ffn.cuh"
#include "kernels/gated_ffn/gated_ffn_cuda.h"

namespace tern::kernels {
namespace {

// Fills a large device (132 multiprocessors, 8 such blocks each) twice; further elements are taken
// in turn.
constexpr int64_t kMostBlocks = 2048;

}  // namespace

const char* LaunchGatedFfn(GateActivation activation, const GatedFfnArgs& args, void* stream) {
  if (args.count == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  const auto blocks =
      static_cast<unsigned>(std::min((args.count + kRowStep - 1) / kRowStep, kMostBlocks));
  switch (activation) {
    case GateActivation::kSilu:
      GatedFfnKernel<GateActivation::kSilu><<<blocks, kRowThreads, 0, queue>>>(args);
      break;
    case GateActivation::kSquaredRelu:
      GatedFfnKernel<GateActivation::kSquaredRelu><<<blocks, kRowThreads, 0, queue>>>(args);
      break;
  }
  return ErrorText(cudaGetLastError());
}

}  // namespace tern::kernels
