// Host launcher of rounded inputs on a GPU.
#include "kernels/round_inputs/round_inputs.cuh"
#include "kernels/round_inputs/round_inputs_cuda.h"
#include "kernels/simt/launch.h"

namespace tern::kernels {

const char* LaunchRoundInputs(const RoundInputsArgs& args, void* stream) {
  if (args.m == 0 || args.k == 0) return nullptr;
  RoundInputsArgs all = args;
  if (all.group <= 0 || all.group > all.k) all.group = all.k;
  if (all.codes != nullptr && (!all.fp8 || all.group < all.k))
    return "codes of rounded inputs are of FP8 with one scale a row";
  const simt::Grid grid{static_cast<unsigned>(all.m * ((all.k + all.group - 1) / all.group))};
  return simt::LaunchKernel(all.fp8 ? RoundInputsKernel<true> : RoundInputsKernel<false>, grid,
                            kRowThreads, stream, all);
}

}  // namespace tern::kernels
