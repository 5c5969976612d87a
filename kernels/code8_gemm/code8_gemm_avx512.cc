// Code8Gemm with AVX-512 VNNI, in registers of 256 bits: a type's two halves of 16 codes fill one,
// and eight sums one of floats.
#include "kernels/code8_gemm/code8_gemm_vec.h"
#include "kernels/code8_gemm/pairs_vnni.h"

namespace tern::kernels {
namespace {

struct BytesAvx512 {
  static TERN_INLINE __m256i Dot(__m256i sum, __m256i codes, __m256i x) {
    return _mm256_dpbusd_epi32(sum, codes, x);
  }
};
using Version = Code8GemmVec<PairsVnni<BytesAvx512>, 4>;

}  // namespace

void Code8GemmAvx512(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end) {
  Version::Run(args, n_begin, n_end);
}

void QuantizeInt8Avx512(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out) {
  Version::Quantize(x, m, k, ldx, out);
}

}  // namespace tern::kernels
