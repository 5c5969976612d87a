// Ternary product with AVX-VNNI for up to four tokens. Sums in int32: planes 1 and 3 add at most
// 2 * (4 * 8 * 128) = 8192 a block and element, so 2^16 blocks fit exactly; a longer row is taken
// in pieces.
#include <immintrin.h>

#include "kernels/ternary_gemm/ternary_gemm_few_256.h"
#include "kernels/ternary_gemm/ternary_gemm_impl.h"

namespace tern::kernels {
namespace {

struct Sums {
  static constexpr int64_t kBlocks = 1 << 16;
  static TERN_INLINE __m256i Add(__m256i sum, __m256i codes, __m256i x) {
    return _mm256_dpbusd_avx_epi32(sum, codes, x);
  }
  static TERN_INLINE __m256i Total(__m256i even, __m256i odd) {
    return _mm256_add_epi32(even, _mm256_srai_epi32(odd, 2));
  }
};

}  // namespace

void TernaryGemmFewAvxVnni(const TernaryGemmArgs& args, const GemmRange& range) {
  TernaryFew256<Sums>::Run(args, range);
}

}  // namespace tern::kernels
