// Ternary product with AVX2 for up to four tokens. Sums in int16: planes 1 and 3 add at most
// 2 * (2 * 8 * 128) = 4096 a block, so 8 blocks fit exactly before widening.
#include <immintrin.h>

#include "kernels/ternary_gemm/ternary_gemm_few_256.h"
#include "kernels/ternary_gemm/ternary_gemm_impl.h"

namespace tern::kernels {
namespace {

struct Sums {
  static constexpr int64_t kBlocks = 8;
  static TERN_INLINE __m256i Add(__m256i sum, __m256i codes, __m256i x) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
  }
  static TERN_INLINE __m256i Total(__m256i even, __m256i odd) {
    const __m256i ones = _mm256_set1_epi16(1);
    return _mm256_add_epi32(_mm256_madd_epi16(even, ones),
                            _mm256_srai_epi32(_mm256_madd_epi16(odd, ones), 2));
  }
};

}  // namespace

void TernaryGemmFewAvx2(const TernaryGemmArgs& args, const GemmRange& range) {
  TernaryFew256<Sums>::Run(args, range);
}

}  // namespace tern::kernels
