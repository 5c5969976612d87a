// Host launchers of the weight quantizer on a GPU.
#include <algorithm>

#include "kernels/simt/launch.h"
#include "kernels/ternary_quantize/ternary_quantize.cuh"
#include "kernels/ternary_quantize/ternary_quantize_cuda.h"
#include "kernels/ternary_quantize/ternary_scale.cuh"

namespace tern::kernels {
namespace {

// Enough to fill a large device (132 multiprocessors, 8 such blocks each) twice; each warp adds to
// the counters once, so more would only queue there.
constexpr int64_t kMostBlocks = 2048;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

const char* LaunchTernaryScale(const float* w, int64_t count, float* block_sums, float* beta,
                               void* stream) {
  const int64_t sums = DivideUp(count, kAbsMeanBlock);
  const auto blocks = static_cast<unsigned>(DivideUp(sums, kScaleChains));
  if (const char* error = simt::LaunchKernel(AbsBlockSumsKernel, {blocks}, kRowThreads, stream, w,
                                             count, block_sums))
    return error;
  return simt::LaunchKernel(JoinBlockSumsKernel, {1}, kRowThreads, stream, block_sums, count, beta);
}

const char* LaunchTernaryQuantize(const TernaryQuantizeCudaArgs& args, void* stream) {
  if (args.n == 0) return nullptr;
  const auto blocks = static_cast<unsigned>(std::min(DivideUp(args.n, kRowWarps), kMostBlocks));
  return simt::LaunchKernel(TernaryQuantizeKernel, {blocks}, kRowThreads, stream, args);
}

}  // namespace tern::kernels
