// Code8Gemm with AVX-VNNI.
#include "kernels/code8_gemm/code8_gemm_vec.h"
#include "kernels/code8_gemm/pairs_vnni.h"

namespace tern::kernels {
namespace {

struct BytesAvxVnni {
  static TERN_INLINE __m256i Dot(__m256i sum, __m256i codes, __m256i x) {
    return _mm256_dpbusd_avx_epi32(sum, codes, x);
  }
};
using Version = Code8GemmVec<PairsVnni<BytesAvxVnni>, 4>;

}  // namespace

void Code8GemmAvxVnni(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end) {
  Version::Run(args, n_begin, n_end);
}

}  // namespace tern::kernels
