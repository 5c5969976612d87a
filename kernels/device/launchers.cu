// The table of launchers, and BitLinear's product for any number of rows; one source for nvcc and
// for the emulator.
#include <algorithm>

#include "kernels/device/device_api.h"
#include "kernels/elementwise/elementwise_cuda.h"
#include "kernels/rms_norm/rms_norm_cuda.h"
#include "kernels/rms_norm_quantize/rms_norm_quantize_cuda.h"
#include "kernels/simt/launch.h"
#include "kernels/table/table_cuda.h"
#include "kernels/ternary_gemm/ternary_gemv.cuh"

namespace tern::kernels {
namespace {

template <int kBatch>
const char* LaunchBatch(const TernaryGemvArgs& args, void* stream) {
  // Few rows of long k: the warps of a block share a row, so that more of them are at work.
  constexpr int kFewRows = 1024, kSplitMinK = 4 * 32 * 64;
  const auto n = static_cast<unsigned>(args.n);
  if (args.n < kFewRows && args.padded_k >= kSplitMinK) {
    return simt::LaunchKernel(TernaryGemvKernel<kBatch, kGemvBlockWarps>, {n}, kGemvBlockThreads,
                              stream, args);
  }
  return simt::LaunchKernel(TernaryGemvKernel<kBatch, 1>,
                            {(n + kGemvBlockWarps - 1) / kGemvBlockWarps}, kGemvBlockThreads,
                            stream, args);
}

const char* LaunchRows(const TernaryGemvArgs& args, int rows, void* stream) {
  switch (rows) {
    case 1:
      return LaunchBatch<1>(args, stream);
    case 2:
      return LaunchBatch<2>(args, stream);
    case 3:
      return LaunchBatch<3>(args, stream);
    case 4:
      return LaunchBatch<4>(args, stream);
    case 5:
      return LaunchBatch<5>(args, stream);
    case 6:
      return LaunchBatch<6>(args, stream);
    case 7:
      return LaunchBatch<7>(args, stream);
    default:
      return LaunchBatch<kGemvMaxBatch>(args, stream);
  }
}

// Weights are read once for kGemvMaxBatch rows.
const char* LaunchTernaryLinear(const TernaryLinearArgs& args, void* stream) {
  if (args.n == 0) return nullptr;
  for (int row = 0; row < args.m; row += kGemvMaxBatch) {
    const TernaryGemvArgs part{args.w_t2,
                               args.x + static_cast<int64_t>(row) * args.ldx,
                               args.x_sum + row,
                               args.out_scale + row,
                               args.y + static_cast<int64_t>(row) * args.ldy,
                               args.n,
                               args.padded_k,
                               args.ldx,
                               args.ldy};
    const char* error = LaunchRows(part, std::min(args.m - row, kGemvMaxBatch), stream);
    if (error != nullptr) return error;
  }
  return nullptr;
}

}  // namespace

DeviceKernels LinkedKernels() {
  DeviceKernels kernels;
  kernels.gather_rows = LaunchGatherRows;
  kernels.table_product = LaunchTableProduct;
  kernels.rms_norm = LaunchRmsNorm;
  kernels.rms_norm_quantize = LaunchRmsNormQuantize;
  kernels.absmax_quantize = LaunchAbsmaxQuantize;
  kernels.out_scale = LaunchOutScale;
  kernels.ternary_linear = LaunchTernaryLinear;
  kernels.rope = LaunchRope;
  kernels.write_kv = LaunchWriteKv;
  kernels.attention = LaunchAttention;
  kernels.gated_ffn = LaunchGatedFfn;
  kernels.add = LaunchAdd;
  kernels.argmax = LaunchArgmax;
  return kernels;
}

}  // namespace tern::kernels
