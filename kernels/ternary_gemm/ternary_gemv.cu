// Host launcher of the ternary product for few vectors on a GPU: up to 3 by dp4a, where rows are
// split over the warps of a block when the matrix has too few to fill the device; from 4 on by
// tensor cores, which need half of the instructions (docs/kernel_bounds.md).
#include <cuda_runtime.h>

#include "kernels/common/cuda_error.h"
#include "kernels/ternary_gemm/ternary_gemv.cuh"
#include "kernels/ternary_gemm/ternary_gemv_cuda.h"
#include "kernels/ternary_gemm/ternary_gemv_mma.cuh"

namespace tern::kernels {
namespace {

// Below this many rows one warp a row leaves most multiprocessors of a large device (132 with 4
// schedulers) idle.
constexpr int kFewRows = 1024;
// Shortest row (steps of 64 codes for 32 lanes) that still gives each of four warps a full step.
constexpr int kSplitMinK = 4 * 32 * 64;

template <int kBatch>
void LaunchBatch(const TernaryGemvArgs& args, cudaStream_t stream) {
  if (args.n < kFewRows && args.padded_k >= kSplitMinK) {
    TernaryGemvKernel<kBatch, kGemvBlockWarps><<<args.n, kGemvBlockThreads, 0, stream>>>(args);
  } else {
    const int blocks = (args.n + kGemvBlockWarps - 1) / kGemvBlockWarps;
    TernaryGemvKernel<kBatch, 1><<<blocks, kGemvBlockThreads, 0, stream>>>(args);
  }
}

}  // namespace

int CudaDeviceCount() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

const char* LaunchTernaryGemv(const TernaryGemvArgs& args, int batch, void* stream) {
  if (args.n == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  switch (batch) {
    case 1:
      LaunchBatch<1>(args, queue);
      break;
    case 2:
      LaunchBatch<2>(args, queue);
      break;
    case 3:
      LaunchBatch<3>(args, queue);
      break;
    default: {
      if (batch < 1 || batch > kGemvMaxBatch) {
        return "LaunchTernaryGemv: batch must be 1 to 8; split larger ones.";
      }
      const int blocks = (args.n + kGemvMmaRows - 1) / kGemvMmaRows;
      TernaryGemvMmaKernel<<<blocks, kGemvMmaThreads, 0, queue>>>(args, batch);
    }
  }
  return ErrorText(cudaGetLastError());
}

}  // namespace tern::kernels
