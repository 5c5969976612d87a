// Host launchers of the backward pass's products: they check what the kernels rely on.
#include "kernels/simt/launch.h"
#include "kernels/ternary_backward/ternary_backward.cuh"
#include "kernels/ternary_backward/ternary_backward_cuda.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {
namespace {

constexpr int64_t kMaxGridY = 65535;

bool IsAligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// What both products want of their sizes and of dY; `rows` are the result's. Null, or what is
// wrong.
const char* CheckSizes(int64_t m, int64_t n, int64_t k, int64_t rows, int64_t lddy) {
  constexpr int64_t kMax = int64_t{1} << 30;
  if (m < 0 || n < 0 || k < 0) return "ternary gradient: a size is negative";
  if (m >= kMax || n >= kMax || T2PaddedK(k) >= 2 * kMax - kGradTile) {
    return "ternary gradient: m and n must stay below 2^30, k below 2^31";
  }
  if (rows > kMaxGridY * kGradTile) {
    return "ternary gradient: at most 8,388,480 rows of a result a call; split the batch";
  }
  if (lddy % 8 != 0 || lddy < GradientColumns(n)) {
    return "ternary gradient: lddy must be a multiple of 8 and hold n up to one";
  }
  return nullptr;
}

simt::Grid Tiles(int64_t rows, int64_t columns) {
  return {static_cast<unsigned>((columns + kGradTile - 1) / kGradTile),
          static_cast<unsigned>((rows + kGradTile - 1) / kGradTile)};
}

}  // namespace

const char* LaunchTernaryInputGradient(const TernaryInputGradientArgs& args, void* stream) {
  if (const char* wrong = CheckSizes(args.m, args.n, args.k, args.m, args.lddy)) return wrong;
  if (args.lddx < args.k) return "ternary gradient: lddx must be at least k";
  if (!IsAligned(args.dy) || !IsAligned(args.w_t2)) {
    return "ternary gradient: dy and weights must be aligned to 16 bytes";
  }
  const InputGradientDeviceArgs device{args.dy,
                                       args.w_t2,
                                       args.dx,
                                       0.5f * args.beta,
                                       args.add,
                                       static_cast<int>(args.m),
                                       static_cast<int>(args.n),
                                       static_cast<int>(args.k),
                                       static_cast<int>(T2PaddedK(args.k)),
                                       args.lddy,
                                       args.lddx};
  return simt::LaunchKernelShared(TernaryInputGradientKernel, Tiles(args.m, args.k), kGradThreads,
                                  kInputGradSharedBytes, stream, device);
}

const char* LaunchTernaryWeightGradient(const TernaryWeightGradientArgs& args, void* stream) {
  if (const char* wrong = CheckSizes(args.m, args.n, args.k, args.n, args.lddy)) return wrong;
  if (args.lddw < args.k) return "ternary gradient: lddw must be at least k";
  if (args.ldx % 16 != 0 || args.ldx < T2PaddedK(args.k)) {
    return "ternary gradient: ldx must be a multiple of 16 and hold k padded to a multiple of 128";
  }
  if (!IsAligned(args.dy) || !IsAligned(args.x)) {
    return "ternary gradient: dy and codes must be aligned to 16 bytes";
  }
  const WeightGradientDeviceArgs device{args.dy,
                                        args.x,
                                        args.dw,
                                        static_cast<int>(args.m),
                                        static_cast<int>(args.n),
                                        static_cast<int>(args.k),
                                        static_cast<int>(T2PaddedK(args.k)),
                                        args.lddy,
                                        args.ldx,
                                        args.lddw};
  return simt::LaunchKernelShared(TernaryWeightGradientKernel, Tiles(args.n, args.k), kGradThreads,
                                  kWeightGradSharedBytes, stream, device);
}

}  // namespace tern::kernels
