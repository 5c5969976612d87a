// Picks the version of Code8Gemm and cuts the rows for the threads.
#include "kernels/code8_gemm/code8_gemm.h"

#include "kernels/code8_gemm/code8_gemm_impl.h"
#include "kernels/code_gemm/code_gemm_impl.h"
#include "kernels/common/versions.h"

namespace tern::kernels {

void QuantizeInt8(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out) {
  return TERN_ACTIVE(QuantizeInt8)(x, m, k, ldx, out);
}

void Code8Gemm(const Code8GemmArgs& args, const ParallelFor& parallel) {
  CutRows(TERN_ACTIVE_VNNI(Code8Gemm), args, parallel);
}

}  // namespace tern::kernels
