// Host launcher of the gate on a GPU.
#include <algorithm>

#include "kernels/gated_ffn/gated_ffn.cuh"
#include "kernels/gated_ffn/gated_ffn_cuda.h"
#include "kernels/simt/launch.h"

namespace tern::kernels {
namespace {

// Fills a large device (132 multiprocessors, 8 such blocks each) twice; further elements are taken
// in turn.
constexpr int64_t kMostBlocks = 2048;

}  // namespace

const char* LaunchGatedFfn(GateActivation activation, const GatedFfnArgs& args, void* stream) {
  if (args.count == 0) return nullptr;
  const auto blocks =
      static_cast<unsigned>(std::min((args.count + kRowStep - 1) / kRowStep, kMostBlocks));
  switch (activation) {
    case GateActivation::kSilu:
      return simt::LaunchKernel(GatedFfnKernel<GateActivation::kSilu>, {blocks}, kRowThreads,
                                stream, args);
    case GateActivation::kSquaredRelu:
      return simt::LaunchKernel(GatedFfnKernel<GateActivation::kSquaredRelu>, {blocks}, kRowThreads,
                                stream, args);
  }
  return "LaunchGatedFfn: no such activation";
}

}  // namespace tern::kernels
