// CodeGemm with AVX-512 VNNI.
#include "kernels/code_gemm/bytes64_avx512.h"
#include "kernels/code_gemm/code_gemm_vec.h"

namespace tern::kernels {
namespace {
using Version = CodeGemmVec<Bytes64Avx512, 2, 2, 4>;
}  // namespace

void CodeGemmAvx512(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end) {
  Version::Run(args, n_begin, n_end);
}

void QuantizeInt16Avx512(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out) {
  Version::Quantize(x, m, k, ldx, out);
}

}  // namespace tern::kernels
