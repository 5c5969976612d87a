// The table of launchers, and BitLinear's product for any number of rows; one source for nvcc and
// for the emulator.
#include "kernels/device/device_api.h"
#include "kernels/rms_norm/rms_norm_cuda.h"
#include "kernels/rms_norm_quantize/rms_norm_quantize_cuda.h"
#include "kernels/table/table_cuda.h"
#include "kernels/ternary_backward/ternary_backward_cuda.h"
#include "kernels/ternary_gemm/ternary_gemm_cuda.h"
#include "kernels/ternary_gemm/ternary_gemv.cuh"
#include "kernels/ternary_gemm/ternary_gemv_cuda.h"

namespace tern::kernels {
namespace {

const char* LaunchTernaryLinear(const TernaryLinearArgs& args, void* stream) {
  if (args.m == 0 || args.n == 0) return nullptr;
  if (args.m > kGemvMaxBatch) {
    return LaunchTernaryGemm({args.w_t2, args.x, args.x_sum, args.out_scale, args.y, args.m, args.n,
                              args.padded_k, args.ldx, args.ldy},
                             stream);
  }
  const TernaryGemvArgs few{args.w_t2, args.x,        args.x_sum, args.out_scale, args.y,
                            args.n,    args.padded_k, args.ldx,   args.ldy};
  return LaunchTernaryGemv(few, args.m, stream);
}

}  // namespace

DeviceKernels LinkedKernels() {
  DeviceKernels kernels;
  kernels.gather_rows = LaunchGatherRows;
  kernels.table_product = LaunchTableProduct;
  kernels.expand_table = LaunchExpandTable;
  kernels.rms_norm = LaunchRmsNorm;
  kernels.rms_norm_quantize = LaunchRmsNormQuantize;
  kernels.absmax_quantize = LaunchAbsmaxQuantize;
  kernels.out_scale = LaunchOutScale;
  kernels.ternary_linear = LaunchTernaryLinear;
  kernels.w4a16 = LaunchW4A16;
  kernels.gemm = LaunchGemm;
  kernels.fp8_gemm_runs = Fp8GemmRuns;
  kernels.round_inputs = LaunchRoundInputs;
  kernels.scale_rows = LaunchScaleRows;
  kernels.round_rows = LaunchRoundRows;
  kernels.rope_kv = LaunchRopeKv;
  kernels.attention = LaunchAttention;
  kernels.gated_ffn = LaunchGatedFfn;
  kernels.add = LaunchAdd;
  kernels.add_bias = LaunchAddBias;
  kernels.top_k = LaunchTopK;
  kernels.ternary_scale = LaunchTernaryScale;
  kernels.ternary_quantize = LaunchTernaryQuantize;
  kernels.round_gradient = LaunchRoundGradient;
  kernels.ternary_input_gradient = LaunchTernaryInputGradient;
  kernels.ternary_weight_gradient = LaunchTernaryWeightGradient;
  return kernels;
}

}  // namespace tern::kernels
