// Host launcher of the rounding of gradients.
#include "kernels/simt/launch.h"
#include "kernels/ternary_backward/round_gradient.cuh"
#include "kernels/ternary_backward/ternary_backward_cuda.h"

namespace tern::kernels {

const char* LaunchRoundGradient(const RoundGradientArgs& args, void* stream) {
  if (args.m < 0 || args.n < 0) return "RoundGradient: a size is negative";
  const int64_t columns = GradientColumns(args.n), fours = columns / 4;
  if (args.lddy < args.n || args.ldo < columns || args.ldo % 8 != 0) {
    return "RoundGradient: lddy must hold n, ldo n up to a multiple of 8 and be one";
  }
  for (const uint16_t* out : {args.plain, args.scaled}) {
    if (reinterpret_cast<uintptr_t>(out) % 16 != 0) {
      return "RoundGradient: results must be aligned to 16 bytes";
    }
  }
  if (args.m == 0 || args.n == 0) return nullptr;
  if (fours >= (int64_t{1} << 31) / args.m) {
    return "RoundGradient: at most 2^33 elements a call; split the batch";
  }
  const auto blocks = static_cast<unsigned>((args.m * fours + kRoundThreads - 1) / kRoundThreads);
  return simt::LaunchKernel(RoundGradientKernel, {blocks}, kRoundThreads, stream, args,
                            static_cast<unsigned>(fours));
}

}  // namespace tern::kernels
