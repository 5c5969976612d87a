// Code8Gemm with NEON and its dot product of bytes.
#include "kernels/code8_gemm/code8_gemm_vec.h"
#include "kernels/code8_gemm/pairs_neon.h"

namespace tern::kernels {
namespace {
using Version = Code8GemmVec<PairsNeon, 4>;
}  // namespace

void Code8GemmNeon(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end) {
  Version::Run(args, n_begin, n_end);
}

void QuantizeInt8Neon(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out) {
  Version::Quantize(x, m, k, ldx, out);
}

}  // namespace tern::kernels
