// 64 codes as bytes and 16 lanes of floats, each one register of AVX-512 (see codes_vec.h). Only
// for files compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/code_gemm/codes_vec.h"
#include "kernels/code_gemm/int16_tokens.h"
#include "kernels/common/inline.h"

namespace tern::kernels {

struct Bytes64Avx512 {
  using B = __m512i;
  using F = __m512;
  using I = __m512i;

  static TERN_INLINE __m128i Load128(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static TERN_INLINE B And(B v, int mask) {
    return _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(mask)));
  }
  static TERN_INLINE B Or(B a, B b) { return _mm512_or_si512(a, b); }
  template <int n>
  static TERN_INLINE B Shl(B v) {  // REQUIRES: no bit leaves its byte
    return _mm512_slli_epi16(v, n);
  }
  // 32 bytes twice: the first copy >> n0, the second >> n1, both & mask.
  template <int n0, int n1, int mask>
  static TERN_INLINE B Planes32(const uint8_t* p) {
    const B v = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const B counts = _mm512_inserti64x4(_mm512_set1_epi16(n0), _mm256_set1_epi16(n1), 1);
    return And(_mm512_srlv_epi16(v, counts), mask);
  }
  // 64 bytes >> n & mask.
  template <int n, int mask>
  static TERN_INLINE B Shr64(const uint8_t* p) {
    return And(_mm512_srli_epi16(_mm512_loadu_si512(p), n), mask);
  }
  // Two times 16 bytes: low halves and high halves of p0, then of p1.
  static TERN_INLINE B Nibbles16(const uint8_t* p0, const uint8_t* p1) {
    const B v =
        _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(Load128(p0)), 0xFF00, Load128(p1));
    const B counts = _mm512_set_epi64(0x0004000400040004, 0x0004000400040004, 0, 0,
                                      0x0004000400040004, 0x0004000400040004, 0, 0);
    return And(_mm512_srlv_epi16(v, counts), 15);
  }
  // 16 where a bit is set: 32 of w0, then 32 of w1.
  static TERN_INLINE B Sixteens(uint32_t w0, uint32_t w1) {
    return _mm512_maskz_set1_epi8(static_cast<uint64_t>(w1) << 32 | w0, 16);
  }

  // For each lane, the sum of its four codes times 16-bit activations.
  static TERN_INLINE I Dot(B codes, const int8_t* high, const int8_t* low) {
    I sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, _mm512_load_si512(high));
    sum = _mm512_slli_epi32(sum, 8);
    return _mm512_dpbusd_epi32(sum, codes, _mm512_load_si512(low));
  }

  // For code_gemm_many.h: 64 bytes stored; those at even and at odd places, each as 16 bits.
  static TERN_INLINE void StoreCodes(uint8_t* p, B codes) { _mm512_store_si512(p, codes); }
  static TERN_INLINE B EvenCodes(const uint8_t* p) {
    return _mm512_and_si512(_mm512_load_si512(p), _mm512_set1_epi16(0xFF));
  }
  static TERN_INLINE B OddCodes(const uint8_t* p) {
    return _mm512_srli_epi16(_mm512_load_si512(p), 8);
  }
  // As Dot, of 64 words of an Int16Block.
  static TERN_INLINE I DotWords(B even, B odd, const int16_t* words) {
    const I sum = _mm512_madd_epi16(even, _mm512_load_si512(words));
    return _mm512_dpwssd_epi32(sum, odd, _mm512_load_si512(words + 32));
  }
  static TERN_INLINE float FirstLane(F v) { return _mm512_cvtss_f32(v); }

  static TERN_INLINE float Half(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return _cvtsh_ss(bits);
  }
  static TERN_INLINE F Zero() { return _mm512_setzero_ps(); }
  static TERN_INLINE F Load(const float* p) { return _mm512_load_ps(p); }
  static TERN_INLINE F LoadAny(const float* p) { return _mm512_loadu_ps(p); }
  static TERN_INLINE void Store(float* p, F v) { _mm512_store_ps(p, v); }
  // 16 lanes to 8 to 4, as JoinLanes adds (common/join_four.h).
  static TERN_INLINE __m128 Fold(F v) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  }
  static TERN_INLINE F Broadcast(float v) { return _mm512_set1_ps(v); }
  static TERN_INLINE F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static TERN_INLINE F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static TERN_INLINE F ToFloat(I v) { return _mm512_cvtepi32_ps(v); }
  // The eight halves at h, each in two lanes.
  static TERN_INLINE F Doubled(Halves8 eight) {
    const auto halves = (__m128i)eight;
    const __m512i index = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_cvtph_ps(halves)));
  }
  static TERN_INLINE F FromUnsigned(Bytes16 sixteen) {
    const auto bytes = (__m128i)sixteen;
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
  }
  static TERN_INLINE F FromSigned(Bytes16 sixteen) {
    const auto bytes = (__m128i)sixteen;
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
  // Lane l becomes lane 4 c + l / 4.
  template <int c>
  static TERN_INLINE F Spread(F v) {
    const __m512i index = _mm512_set_epi32(4 * c + 3, 4 * c + 3, 4 * c + 3, 4 * c + 3, 4 * c + 2,
                                           4 * c + 2, 4 * c + 2, 4 * c + 2, 4 * c + 1, 4 * c + 1,
                                           4 * c + 1, 4 * c + 1, 4 * c, 4 * c, 4 * c, 4 * c);
    return _mm512_permutexvar_ps(index, v);
  }

  // Of ScalesOfBlocks: lanes in their order, each block's scale in two of them.
  static TERN_INLINE F Blocks8(Halves8 eight) { return Doubled(eight); }
  template <int c>
  static TERN_INLINE F SpreadBlocks(F scales) {
    return Spread<c>(scales);
  }
  static TERN_INLINE F BlockLanes(F scales) { return scales; }
  static TERN_INLINE F BlockLanesInOrder(F lanes) { return lanes; }
  static TERN_INLINE const float* BlockSums(const Int16Block& x) { return x.sums; }
  static TERN_INLINE const int8_t* BlockHigh(const Int16Block& x) { return x.high; }
  static TERN_INLINE const int8_t* BlockLow(const Int16Block& x) { return x.low; }

  // Lane l becomes lane 2 c + l / 8.
  template <int c>
  static TERN_INLINE F Spread32(F v) {
    const __m512i index =
        _mm512_inserti64x4(_mm512_set1_epi32(2 * c), _mm256_set1_epi32(2 * c + 1), 1);
    return _mm512_permutexvar_ps(index, v);
  }
  // The fp16 at p in the lanes 0 to 7, minus the next one in the others.
  static TERN_INLINE F HalvesOf(const uint8_t* p) {
    const __m128 two = _mm_cvtph_ps(_mm_loadu_si32(p));
    const __m128 signs = _mm_xor_ps(two, _mm_setr_ps(0.0f, -0.0f, 0.0f, 0.0f));
    const __m512i index = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(1), 1);
    return _mm512_permutexvar_ps(index, _mm512_castps128_ps512(signs));
  }

  // For QuantizeInt16.
  static TERN_INLINE F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static TERN_INLINE F Abs(F v) { return _mm512_abs_ps(v); }
  static TERN_INLINE float MaxLane(F v) { return _mm512_reduce_max_ps(v); }
  // Rounds 16 floats and stores their bytes; returns their sum.
  static TERN_INLINE float SplitBytes(F v, int8_t* high, int8_t* low) {
    const __m512i q = _mm512_cvtps_epi32(v);
    const __m512i h = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(128)), 8);
    const __m512i l = _mm512_sub_epi32(q, _mm512_slli_epi32(h, 8));
    _mm_store_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(h));
    _mm_store_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(l));
    return static_cast<float>(_mm512_reduce_add_epi32(q));
  }
};

}  // namespace tern::kernels
