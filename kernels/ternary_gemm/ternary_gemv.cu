// Host launcher of the ternary product on a GPU: picks the batch instance, and splits rows over the
// warps of a block when the matrix has too few rows to fill the device.
#include <cuda_runtime.h>

#include "kernels/common/cuda_error.h"
#include "kernels/ternary_gemm/ternary_gemv.cuh"
#include "kernels/ternary_gemm/ternary_gemv_cuda.h"

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
    case 4:
      LaunchBatch<4>(args, queue);
      break;
    case 5:
      LaunchBatch<5>(args, queue);
      break;
    case 6:
      LaunchBatch<6>(args, queue);
      break;
    case 7:
      LaunchBatch<7>(args, queue);
      break;
    case 8:
      LaunchBatch<8>(args, queue);
      break;
    default:
      return "LaunchTernaryGemv: batch must be 1 to 8; split larger ones.";
  }
  return ErrorText(cudaGetLastError());
}

}  // namespace tern::kernels
