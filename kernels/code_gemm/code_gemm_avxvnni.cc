// CodeGemm with AVX-VNNI: the AVX2 version but for the products of bytes.
#include "kernels/code_gemm/bytes64_avx2.h"
#include "kernels/code_gemm/code_gemm_vec.h"

namespace tern::kernels {
namespace {

struct Bytes64AvxVnni : Bytes64Avx2 {
  static TERN_INLINE __m256i Dot32(__m256i codes, const int8_t* high, const int8_t* low) {
    __m256i sum = _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), codes, Load256(high));
    sum = _mm256_slli_epi32(sum, 8);
    return _mm256_dpbusd_avx_epi32(sum, codes, Load256(low));
  }
  static TERN_INLINE I Dot(B codes, const int8_t* high, const int8_t* low) {
    return {Dot32(codes.a, high, low), Dot32(codes.b, high + 32, low + 32)};
  }
};

using Version = CodeGemmVec<Bytes64AvxVnni, 1, 1, 2>;

}  // namespace

void CodeGemmAvxVnni(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end) {
  Version::Run(args, n_begin, n_end);
}

}  // namespace tern::kernels
