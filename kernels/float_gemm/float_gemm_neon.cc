// FloatGemm with NEON.
#include "kernels/float_gemm/float_gemm_vec.h"
#include "kernels/float_gemm/lanes16_neon.h"

namespace tern::kernels {

// Tiles of four sums of 16 lanes: 16 of the 32 registers.
void FloatGemmNeon(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer) {
  FloatGemmVec<Lanes16Neon, 1, 2, 2>::Run(args, n_begin, n_end, buffer);
}

}  // namespace tern::kernels
