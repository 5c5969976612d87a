// Host launcher of the tensor-core product: checks what the kernel relies on, picks the token tile.
#include "kernels/simt/launch.h"
#include "kernels/ternary_gemm/ternary_gemm.cuh"
#include "kernels/ternary_gemm/ternary_gemm_cuda.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {
namespace {

constexpr int64_t kSmallTile = 4;  // Tiles of 8 tokens: 32 tokens a block.
constexpr int64_t kLargeTile = 8;
constexpr int64_t kMaxGridY = 65535;

template <int kTiles>
const char* LaunchTiles(const TernaryGemmDeviceArgs& args, void* stream) {
  const int tokens = 8 * kTiles;
  const simt::Grid grid{static_cast<unsigned>((args.n + kGemmTileRows - 1) / kGemmTileRows),
                        static_cast<unsigned>((args.m + tokens - 1) / tokens)};
  return simt::LaunchKernelShared(TernaryGemmKernel<kTiles>, grid, kGemmThreads,
                                  kGemmSharedBytes<kTiles>, stream, args);
}

}  // namespace

const char* CheckTernaryGemmCuda(const TernaryGemmArgs& args) {
  constexpr int64_t kMax = int64_t{1} << 31;
  if (args.m < 0 || args.n < 0 || args.k < 0) return "TernaryGemm: a size is negative";
  if (args.n >= kMax - kGemmTileRows || T2PaddedK(args.k) >= kMax - kGemmStepK) {
    return "TernaryGemm: n and k must stay below 2^31";
  }
  if (args.m > kMaxGridY * 8 * kLargeTile) {
    return "TernaryGemm: at most 4,194,240 tokens a call; split the batch";
  }
  if (args.ldx % 16 != 0 || args.ldx < T2PaddedK(args.k)) {
    return "TernaryGemm: ldx must be a multiple of 16 and hold k padded to a multiple of 128";
  }
  if (args.ldy < args.n) return "TernaryGemm: ldy must be at least n";
  if (reinterpret_cast<uintptr_t>(args.w_t2) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(args.x) % 16 != 0) {
    return "TernaryGemm: weights and activations must be aligned to 16 bytes";
  }
  return nullptr;
}

const char* LaunchTernaryGemm(const TernaryGemmArgs& args, void* stream) {
  if (const char* wrong = CheckTernaryGemmCuda(args)) return wrong;
  if (args.m == 0 || args.n == 0) return nullptr;
  const TernaryGemmDeviceArgs device{args.w_t2,
                                     args.x,
                                     args.x_sum,
                                     args.out_scale,
                                     args.y,
                                     static_cast<int>(args.m),
                                     static_cast<int>(args.n),
                                     static_cast<int>(T2PaddedK(args.k)),
                                     args.ldx,
                                     args.ldy};
  // A tile of 64 tokens reuses weights twice as often; with few tokens half of it would be empty.
  if (args.m <= 8 * kSmallTile) return LaunchTiles<kSmallTile>(device, stream);
  return LaunchTiles<kLargeTile>(device, stream);
}

}  // namespace tern::kernels
