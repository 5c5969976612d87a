// Host launchers of the weight quantizer on a GPU.
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/common/cuda_error.h"
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
  const auto queue = static_cast<cudaStream_t>(stream);
  const int64_t sums = DivideUp(count, kAbsMeanBlock);
  const auto blocks = static_cast<unsigned>(DivideUp(sums, kScaleChains));
  AbsBlockSumsKernel<<<blocks, kRowThreads, 0, queue>>>(w, count, block_sums);
  JoinBlockSumsKernel<<<1, kRowThreads, 0, queue>>>(block_sums, count, beta);
  return ErrorText(cudaGetLastError());
}

const char* LaunchTernaryQuantize(const TernaryQuantizeCudaArgs& args, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  if (const char* error = ErrorText(cudaMemsetAsync(args.counts, 0, sizeof(TernaryCounts), queue)))
    return error;
  if (args.n == 0) return nullptr;
  const auto blocks = static_cast<unsigned>(std::min(DivideUp(args.n, kRowWarps), kMostBlocks));
  TernaryQuantizeKernel<<<blocks, kRowThreads, 0, queue>>>(args);
  return ErrorText(cudaGetLastError());
}

}  // namespace tern::kernels
