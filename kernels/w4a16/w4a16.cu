// Host launcher of the 4-bit product: checks what the kernels rely on, picks GEMV or GEMM.
#include "kernels/simt/launch.h"
#include "kernels/w4a16/w4a16_cuda.h"
#include "kernels/w4a16/w4a16_gemm.cuh"
#include "kernels/w4a16/w4a16_gemv.cuh"

namespace tern::kernels {
namespace {

constexpr int64_t kMaxTokens = 65535 * int64_t{kW4GemmTokens};  // Of a grid's second dimension.

template <bool kBf16>
const char* LaunchType(const W4A16DeviceArgs& args, void* stream) {
  if (args.m <= kW4GemvMaxBatch) {
    const auto blocks = static_cast<unsigned>((args.n + kW4GemvRows - 1) / kW4GemvRows);
    return simt::LaunchKernel(W4A16GemvKernel<kBf16>, {blocks}, kW4GemvThreads, stream, args);
  }
  const simt::Grid grid{static_cast<unsigned>((args.n + kW4GemmRows - 1) / kW4GemmRows),
                        static_cast<unsigned>((args.m + kW4GemmTokens - 1) / kW4GemmTokens)};
  return simt::LaunchKernelShared(W4A16GemmKernel<kBf16>, grid, kW4GemmThreads, kW4GemmSharedBytes,
                                  stream, args);
}

}  // namespace

const char* CheckW4A16Cuda(const W4A16CudaArgs& args) {
  constexpr int64_t kMax = int64_t{1} << 31;
  if (args.m < 0 || args.n < 0 || args.k < 0) return "W4A16: a size is negative";
  if (args.n >= kMax - kW4GemmRows || 2 * W4Groups(args.k) * kW4Group >= kMax) {
    return "W4A16: n must stay below 2^31 and k below 2^30";
  }
  if (args.m > kMaxTokens) return "W4A16: at most 4,194,240 tokens a call; split the batch";
  if (args.ldx % 8 != 0 || args.ldx < W4Groups(args.k) * kW4Group) {
    return "W4A16: ldx must be a multiple of 8 and hold k padded to a multiple of 128";
  }
  if (args.ldy < args.n) return "W4A16: ldy must be at least n";
  if (reinterpret_cast<uintptr_t>(args.w) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(args.x) % 16 != 0) {
    return "W4A16: weights and activations must be aligned to 16 bytes";
  }
  return nullptr;
}

const char* LaunchW4A16(const W4A16CudaArgs& args, void* stream) {
  if (const char* wrong = CheckW4A16Cuda(args)) return wrong;
  if (args.m == 0 || args.n == 0) return nullptr;
  const W4A16DeviceArgs device{args.w,
                               args.scales_GN,
                               args.zeros_GN,
                               args.x,
                               args.x_scale,
                               args.y,
                               static_cast<int>(args.m),
                               static_cast<int>(args.n),
                               static_cast<int>(W4Groups(args.k)),
                               args.ldx,
                               args.ldy};
  return args.type == Float16Type::kBf16 ? LaunchType<true>(device, stream)
                                         : LaunchType<false>(device, stream);
}

}  // namespace tern::kernels
