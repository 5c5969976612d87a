// 32 codes in two halves of 16 and eight floats, each one register of AVX2 (see codes8_vec.h). Only
// for files compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/code8_gemm/codes8_vec.h"
#include "kernels/common/join_four.h"

namespace tern::kernels {

struct PairsAvx2 {
  using B = __m256i;
  using P = __m256i;  // Partial sums: words, of codes of 8 bits double words
  using F = __m256;

  static TERN_INLINE B Load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static TERN_INLINE __m128i Load128(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static TERN_INLINE B Halves(const uint8_t* p0, const uint8_t* p1) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(Load128(p0)), Load128(p1), 1);
  }
  // Each byte >> n & mask.
  template <int n, int mask>
  static TERN_INLINE B Shr(B v) {
    const B shifted = n == 0 ? v : _mm256_srli_epi16(v, n);
    return _mm256_and_si256(shifted, _mm256_set1_epi8(mask));
  }
  template <int n>
  static TERN_INLINE B Shl(B v) {  // REQUIRES: no bit leaves its byte
    return _mm256_slli_epi16(v, n);
  }
  static TERN_INLINE B Or(B a, B b) { return _mm256_or_si256(a, b); }
  // 16 bytes twice: in the first half bits 0 to 3 at 4 to 7, as they are in the second.
  static TERN_INLINE B LowToHigh(const uint8_t* p) {
    return _mm256_sllv_epi64(_mm256_broadcastsi128_si256(Load128(p)),
                             _mm256_set_epi64x(0, 0, 4, 4));
  }
  // 16 where a bit is set: the bits 16 h .. 16 h + 15 of w0, then those of w1.
  template <int h>
  static TERN_INLINE B Sixteens(uint32_t w0, uint32_t w1) {
    const B words =
        _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_cvtsi32_si128(static_cast<int>(w0))),
                                _mm_cvtsi32_si128(static_cast<int>(w1)), 1);
    const B bytes = _mm256_shuffle_epi8(
        words, _mm256_add_epi8(_mm256_set1_epi8(2 * h),
                               _mm256_set_epi64x(0x0101010101010101, 0, 0x0101010101010101, 0)));
    const B bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
    const B set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
  }

  static TERN_INLINE B Ones() { return _mm256_set1_epi16(1); }
  // 32 codes times 32 activations. Two products of a signed byte and one of 7 bits fill a word, two
  // of codes of 6 bits a quarter less than one: see Join.
  template <int kBits>
  static TERN_INLINE P Dot1(B codes, const int8_t* x) {
    if constexpr (kBits < 8) {
      return _mm256_maddubs_epi16(codes, Load(x));
    } else {
      const B products =
          _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(Load(x), codes));
      return _mm256_madd_epi16(products, Ones());
    }
  }
  template <int kBits>
  static TERN_INLINE P Dot2(B a, B b, const int8_t* x) {
    const P pa = Dot1<kBits>(a, x), pb = Dot1<kBits>(b, x + 32);
    return kBits < 8 ? _mm256_add_epi16(pa, pb) : _mm256_add_epi32(pa, pb);
  }
  // Lane i is the sum of the first half of argument i, lane i + 4 that of the second; kProducts of
  // them are in each word. As many levels are added in words as cannot overflow.
  template <int kBits, int kProducts>
  static TERN_INLINE B Join(P p0, P p1, P p2, P p3) {
    if constexpr (kBits == 8) {
      return _mm256_hadd_epi32(_mm256_hadd_epi32(p0, p1), _mm256_hadd_epi32(p2, p3));
    } else {
      constexpr int kLargest = kProducts * 127 * ((1 << kBits) - 1);
      static_assert(2 * kLargest <= 32767);
      const P p01 = _mm256_hadd_epi16(p0, p1), p23 = _mm256_hadd_epi16(p2, p3);
      if constexpr (4 * kLargest <= 32767) {
        return _mm256_madd_epi16(_mm256_hadd_epi16(p01, p23), Ones());
      } else {
        return _mm256_hadd_epi32(_mm256_madd_epi16(p01, Ones()), _mm256_madd_epi16(p23, Ones()));
      }
    }
  }

  static TERN_INLINE F LoadFloats(const float* p) { return _mm256_load_ps(p); }
  static TERN_INLINE F Everywhere(float v) { return _mm256_set1_ps(v); }
  static TERN_INLINE F Add(F a, F b) { return _mm256_add_ps(a, b); }
  static TERN_INLINE F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static TERN_INLINE F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static TERN_INLINE F MinusFma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static TERN_INLINE F ToFloat(B v) { return _mm256_cvtepi32_ps(v); }
  static TERN_INLINE Quad Fold(F v) {
    return (Quad)_mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  }
  static TERN_INLINE F FromHalves(Halves8 halves) { return _mm256_cvtph_ps((__m128i)halves); }
  static TERN_INLINE F HalfEverywhere(const uint8_t* p) {
    int16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return _mm256_cvtph_ps(_mm_set1_epi16(bits));
  }
  // Bytes 8 half .. 8 half + 7.
  template <int half>
  static TERN_INLINE F FromUnsigned(Bytes16 bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128((__m128i)bytes, 8 * half)));
  }
  template <int half>
  static TERN_INLINE F FromSigned(Bytes16 bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128((__m128i)bytes, 8 * half)));
  }

  // For QuantizeInt8.
  static TERN_INLINE float LargestOf32(const float* p) {
    const F sign = _mm256_set1_ps(-0.0f);
    F largest = _mm256_andnot_ps(sign, _mm256_loadu_ps(p));
    for (int i = 8; i < 32; i += 8)
      largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, _mm256_loadu_ps(p + i)));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  // q[i] = rint(p[i] * factor), and the sums of each 16.
  static TERN_INLINE void Round32(const float* p, float factor, int8_t* q, float* sums) {
    const auto round = [&](int i) {
      return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(p + i), _mm256_set1_ps(factor)));
    };
    // Packing works on the halves of registers: the permutation puts fours back in order.
    const B bytes = _mm256_packs_epi16(_mm256_packs_epi32(round(0), round(8)),
                                       _mm256_packs_epi32(round(16), round(24)));
    const B ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), ordered);
    const B fours = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), ordered), Ones());
    const B eights = _mm256_add_epi32(fours, _mm256_shuffle_epi32(fours, 0x4E));
    const B sixteens = _mm256_add_epi32(eights, _mm256_shuffle_epi32(eights, 0xB1));
    sums[0] = static_cast<float>(_mm256_cvtsi256_si32(sixteens));
    sums[1] = static_cast<float>(_mm_cvtsi128_si32(_mm256_extracti128_si256(sixteens, 1)));
  }
};

}  // namespace tern::kernels
