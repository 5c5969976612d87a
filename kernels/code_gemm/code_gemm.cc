// Picks the version of CodeGemm and cuts the rows for the threads.
#include "kernels/code_gemm/code_gemm.h"

#include "kernels/code_gemm/code_gemm_impl.h"
#include "kernels/common/versions.h"

namespace tern::kernels {

void QuantizeInt16(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out) {
  return TERN_ACTIVE(QuantizeInt16)(x, m, k, ldx, out);
}

void CodeGemm(const CodeGemmArgs& args, const ParallelFor& parallel) {
  CutRows(TERN_ACTIVE_VNNI(CodeGemm), args, parallel);
}

}  // namespace tern::kernels
