// PairsAvx2 with products of bytes that add up four at a time, for AVX-VNNI and AVX-512. Bytes::Dot
// is the processor's instruction: sum + four products of codes (unsigned) and activations.
#pragma once

#include "kernels/code8_gemm/pairs_avx2.h"

namespace tern::kernels {

template <class Bytes>
struct PairsVnni : PairsAvx2 {
  template <int kBits>
  static TERN_INLINE P Dot(P sum, B codes, const int8_t* x) {
    if constexpr (kBits < 8)
      return Bytes::Dot(sum, codes, Load(x));
    else
      return Bytes::Dot(sum, _mm256_abs_epi8(codes), _mm256_sign_epi8(Load(x), codes));
  }
  template <int kBits>
  static TERN_INLINE P Dot1(B codes, const int8_t* x) {
    return Dot<kBits>(_mm256_setzero_si256(), codes, x);
  }
  template <int kBits>
  static TERN_INLINE P Dot2(B a, B b, const int8_t* x) {
    return Dot<kBits>(Dot1<kBits>(a, x), b, x + 32);
  }
  template <int kBits, int kProducts>
  static TERN_INLINE B Join(P p0, P p1, P p2, P p3) {  // Double words, as of codes of 8 bits
    return PairsAvx2::Join<8, kProducts>(p0, p1, p2, p3);
  }
};

}  // namespace tern::kernels
