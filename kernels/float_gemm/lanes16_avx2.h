// 16 lanes in two registers of AVX2 (see float_codes.h). Only for files compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/common/inline.h"

namespace tern::kernels {

struct Lanes16Avx2 {
  struct F {
    __m256 a, b;
  };
  struct I {
    __m256i a, b;
  };

  static TERN_INLINE F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static TERN_INLINE F Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static TERN_INLINE F LoadBytes(const uint8_t* p) {
    return Load(reinterpret_cast<const float*>(p));
  }
  static TERN_INLINE void Store(float* p, F v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
  }
  // 16 lanes to 8 to 4, as JoinLanes adds (common/join_four.h).
  static TERN_INLINE __m128 Fold(F v) {
    const __m256 eight = _mm256_add_ps(v.a, v.b);
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  }
  static TERN_INLINE F Broadcast(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
  static TERN_INLINE F Fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)};
  }
  static TERN_INLINE F Mul(F a, F b) { return {_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)}; }
  static TERN_INLINE F Sub(F a, F b) { return {_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b)}; }
  static TERN_INLINE F Add(F a, F b) { return {_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)}; }

  static TERN_INLINE __m128i Load128(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static TERN_INLINE F LoadHalves(const uint8_t* p) {
    return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 16))};
  }
  static TERN_INLINE __m256 WidenBf16(const uint8_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(Load128(p)), 16));
  }
  static TERN_INLINE F LoadBf16(const uint8_t* p) { return {WidenBf16(p), WidenBf16(p + 16)}; }
  static TERN_INLINE F BroadcastHalf(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    const __m256 v = _mm256_cvtph_ps(_mm_set1_epi16(static_cast<int16_t>(bits)));
    return {v, v};
  }

  static TERN_INLINE __m128i Load64(const uint8_t* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
  static TERN_INLINE I LoadSigned(const uint8_t* p) {
    return {_mm256_cvtepi8_epi32(Load64(p)), _mm256_cvtepi8_epi32(Load64(p + 8))};
  }
  static TERN_INLINE I LoadNibbles(const uint8_t* p) {
    const __m128i bytes = Load64(p), low = _mm_set1_epi8(15);
    const __m128i codes =
        _mm_unpacklo_epi8(_mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16(bytes, 4), low));
    return {_mm256_cvtepu8_epi32(codes), _mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8))};
  }
  // As fp16: 2^-8 of the value.
  static TERN_INLINE F LoadE4m3(const uint8_t* p) {
    const __m256i code = _mm256_cvtepu8_epi16(Load128(p));
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(code, _mm256_set1_epi16(0x80)), 8),
                  size = _mm256_slli_epi16(_mm256_and_si256(code, _mm256_set1_epi16(0x7F)), 7);
    const __m256i half = _mm256_or_si256(sign, size);
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(half)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))};
  }
  static TERN_INLINE F ToFloat(I v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
};

}  // namespace tern::kernels
