// CodeGemm with NEON and its dot product of bytes.
#include "kernels/code_gemm/bytes64_neon.h"
#include "kernels/code_gemm/code_gemm_vec.h"

namespace tern::kernels {
namespace {
// Two rows at a time: 8 registers of sums, 8 of scales, the rest for codes and products.
using Version = CodeGemmVec<Bytes64Neon, 2, 1, 2>;
}  // namespace

void CodeGemmNeon(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end) {
  Version::Run(args, n_begin, n_end);
}

void QuantizeInt16Neon(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out) {
  Version::Quantize(x, m, k, ldx, out);
}

}  // namespace tern::kernels
