// 16 lanes in one register of AVX-512 (see float_codes.h). Only for files compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/common/inline.h"

namespace tern::kernels {

struct Lanes16Avx512 {
  using F = __m512;
  using I = __m512i;

  static TERN_INLINE F Zero() { return _mm512_setzero_ps(); }
  static TERN_INLINE F Load(const float* p) { return _mm512_loadu_ps(p); }
  static TERN_INLINE F LoadBytes(const uint8_t* p) { return _mm512_loadu_ps(p); }
  static TERN_INLINE void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
  // 16 lanes to 8 to 4, as JoinLanes adds (common/join_four.h).
  static TERN_INLINE __m128 Fold(F v) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  }
  static TERN_INLINE F Broadcast(float v) { return _mm512_set1_ps(v); }
  static TERN_INLINE F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static TERN_INLINE F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static TERN_INLINE F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static TERN_INLINE F Sub(F a, F b) { return _mm512_sub_ps(a, b); }

  static TERN_INLINE F LoadHalves(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static TERN_INLINE F LoadBf16(const uint8_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static TERN_INLINE F BroadcastHalf(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<int16_t>(bits)));
  }

  static TERN_INLINE I LoadSigned(const uint8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static TERN_INLINE I LoadNibbles(const uint8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)),
                  low = _mm_set1_epi8(15);
    return _mm512_cvtepu8_epi32(
        _mm_unpacklo_epi8(_mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16(bytes, 4), low)));
  }
  // As fp16: 2^-8 of the value.
  static TERN_INLINE F LoadE4m3(const uint8_t* p) {
    const __m256i code = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(code, _mm256_set1_epi16(0x80)), 8),
                  size = _mm256_slli_epi16(_mm256_and_si256(code, _mm256_set1_epi16(0x7F)), 7);
    return _mm512_cvtph_ps(_mm256_or_si256(sign, size));
  }
  static TERN_INLINE F ToFloat(I v) { return _mm512_cvtepi32_ps(v); }
};

}  // namespace tern::kernels
