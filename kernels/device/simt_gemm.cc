// The dense product of the emulator: the oracle's loops, with the rules of cuBLASLt for FP8.
#include "kernels/gemm/gemm_cuda.h"
#include "kernels/simt/launch.h"

namespace tern::kernels {

bool Fp8GemmRuns(int64_t /*m*/, int64_t n, int64_t k) { return Fp8GemmFits(n, k); }

const char* LaunchGemm(const GemmArgs& args, void* /*stream*/) {
  if (args.type == GemmType::kE4m3 && !Fp8GemmFits(args.n, args.k))
    return "an FP8 product needs sizes of w that are multiples of 16";
  simt::Enqueue([args] { GemmRef(args); });
  return nullptr;
}

}  // namespace tern::kernels
