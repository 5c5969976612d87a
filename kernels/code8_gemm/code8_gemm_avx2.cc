// Code8Gemm with AVX2, FMA and F16C.
#include "kernels/code8_gemm/code8_gemm_vec.h"
#include "kernels/code8_gemm/pairs_avx2.h"

namespace tern::kernels {
namespace {
using Version = Code8GemmVec<PairsAvx2, 4>;
}  // namespace

void Code8GemmAvx2(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end) {
  Version::Run(args, n_begin, n_end);
}

void QuantizeInt8Avx2(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out) {
  Version::Quantize(x, m, k, ldx, out);
}

}  // namespace tern::kernels
