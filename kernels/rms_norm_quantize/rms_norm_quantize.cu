// Host launcher of the fused norm and quantizer on a GPU.
#include "kernels/rms_norm_quantize/rms_norm_quantize.cuh"
#include "kernels/rms_norm_quantize/rms_norm_quantize_cuda.h"
#include "kernels/simt/launch.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {

const char* LaunchRmsNormQuantize(const RmsNormQuantizeArgs& args, void* stream) {
  if (args.m == 0) return nullptr;
  const auto blocks = static_cast<unsigned>(args.m);
  const auto padded_d = static_cast<int>(T2PaddedK(args.d));
  return simt::LaunchKernel(RmsNormQuantizeKernel, {blocks}, kRowThreads, stream, args, padded_d);
}

}  // namespace tern::kernels
