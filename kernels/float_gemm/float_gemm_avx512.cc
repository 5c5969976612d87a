// FloatGemm with AVX-512.
#include "kernels/float_gemm/float_gemm_vec.h"
#include "kernels/float_gemm/lanes16_avx512.h"

namespace tern::kernels {

void FloatGemmAvx512(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer) {
  FloatGemmVec<Lanes16Avx512, 4, 4, 4>::Run(args, n_begin, n_end, buffer);
}

}  // namespace tern::kernels
