// FloatGemm with AVX2, FMA and F16C.
#include "kernels/float_gemm/float_gemm_vec.h"
#include "kernels/float_gemm/lanes16_avx2.h"

namespace tern::kernels {

void FloatGemmAvx2(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer) {
  FloatGemmVec<Lanes16Avx2, 1, 2, 3>::Run(args, n_begin, n_end, buffer);
}

}  // namespace tern::kernels
