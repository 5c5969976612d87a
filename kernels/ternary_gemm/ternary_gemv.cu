// Host launcher of the ternary product for few vectors on a GPU: up to 3 by dp4a, where rows are
// split over the warps of a block when the matrix has too few to fill the device; from 4 on by
// tensor cores, which need half of the instructions (docs/kernel_bounds.md).
#include "kernels/simt/launch.h"
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
const char* LaunchBatch(const TernaryGemvArgs& args, void* stream) {
  const auto n = static_cast<unsigned>(args.n);
  if (args.n < kFewRows && args.padded_k >= kSplitMinK) {
    return simt::LaunchKernel(TernaryGemvKernel<kBatch, kGemvBlockWarps>, {n}, kGemvBlockThreads,
                              stream, args);
  }
  return simt::LaunchKernel(TernaryGemvKernel<kBatch, 1>,
                            {(n + kGemvBlockWarps - 1) / kGemvBlockWarps}, kGemvBlockThreads,
                            stream, args);
}

}  // namespace

int CudaDeviceCount() {
  int count = 0;
#if defined(__CUDACC__)
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
#endif
  return count;
}

const char* LaunchTernaryGemv(const TernaryGemvArgs& args, int batch, void* stream) {
  if (batch < 1 || batch > kGemvMaxBatch) {
    return "LaunchTernaryGemv: batch must be 1 to 8; split larger ones.";
  }
  if (args.n == 0) return nullptr;
  switch (batch) {
    case 1:
      return LaunchBatch<1>(args, stream);
    case 2:
      return LaunchBatch<2>(args, stream);
    case 3:
      return LaunchBatch<3>(args, stream);
    default: {
      const auto blocks = static_cast<unsigned>((args.n + kGemvMmaRows - 1) / kGemvMmaRows);
      return simt::LaunchKernel(TernaryGemvMmaKernel, {blocks}, kGemvMmaThreads, stream, args,
                                batch);
    }
  }
}

}  // namespace tern::kernels
