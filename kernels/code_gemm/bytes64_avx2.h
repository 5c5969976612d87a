// 64 codes as bytes and 16 lanes of floats, each two registers of AVX2 (see codes_vec.h). Only for
// files compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/code_gemm/codes_vec.h"
#include "kernels/code_gemm/int16_tokens.h"
#include "kernels/common/inline.h"

namespace tern::kernels {

struct Bytes64Avx2 {
  struct B {
    __m256i a, b;
  };
  struct F {
    __m256 a, b;
  };
  using I = B;

  static TERN_INLINE __m128i Load128(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static TERN_INLINE __m256i Load256(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static TERN_INLINE B And(B v, int mask) {
    const __m256i m = _mm256_set1_epi8(static_cast<char>(mask));
    return {_mm256_and_si256(v.a, m), _mm256_and_si256(v.b, m)};
  }
  static TERN_INLINE B Or(B a, B b) {
    return {_mm256_or_si256(a.a, b.a), _mm256_or_si256(a.b, b.b)};
  }
  template <int n>
  static TERN_INLINE B Shl(B v) {  // REQUIRES: no bit leaves its byte
    return {_mm256_slli_epi16(v.a, n), _mm256_slli_epi16(v.b, n)};
  }
  template <int n0, int n1, int mask>
  static TERN_INLINE B Planes32(const uint8_t* p) {
    const __m256i v = Load256(p);
    return And({_mm256_srli_epi16(v, n0), _mm256_srli_epi16(v, n1)}, mask);
  }
  template <int n, int mask>
  static TERN_INLINE B Shr64(const uint8_t* p) {
    return And({_mm256_srli_epi16(Load256(p), n), _mm256_srli_epi16(Load256(p + 32), n)}, mask);
  }
  // Blocks of 32 come two at a time as their low halves, then their high halves: one shift, and a
  // scale of theirs is the same in both registers. So the second and third four of 16 lanes and the
  // 16 activations of each 64 are exchanged (Int16Block's paired members).
  static TERN_INLINE __m256i Both(__m128i v0, __m128i v1) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(v0), v1, 1);
  }
  static TERN_INLINE B Nibbles16(const uint8_t* p0, const uint8_t* p1) {
    const __m256i v = Both(Load128(p0), Load128(p1));
    return And({v, _mm256_srli_epi16(v, 4)}, 15);
  }
  static TERN_INLINE F Blocks8(Halves8 eight) {  // The second register is not used
    return {_mm256_cvtph_ps((__m128i)eight), _mm256_setzero_ps()};
  }
  template <int c>
  static TERN_INLINE F SpreadBlocks(F s) {
    constexpr int kLane = 2 * c % 4;
    const __m256 v = TwoOf<kLane, kLane + 1>(Four<c / 2>(s));
    return {v, v};
  }
  static TERN_INLINE F BlockLanes(F s) {
    return {_mm256_permutevar8x32_ps(s.a, _mm256_set_epi32(5, 5, 4, 4, 1, 1, 0, 0)),
            _mm256_permutevar8x32_ps(s.a, _mm256_set_epi32(7, 7, 6, 6, 3, 3, 2, 2))};
  }
  static TERN_INLINE F BlockLanesInOrder(F v) {
    return {_mm256_permute2f128_ps(v.a, v.b, 0x20), _mm256_permute2f128_ps(v.a, v.b, 0x31)};
  }
  static TERN_INLINE const float* BlockSums(const Int16Block& x) { return x.paired_sums; }
  static TERN_INLINE const int8_t* BlockHigh(const Int16Block& x) { return x.paired_high; }
  static TERN_INLINE const int8_t* BlockLow(const Int16Block& x) { return x.paired_low; }

  // 16 where a bit of a word is set: `bytes` of w0, then of w1.
  static TERN_INLINE __m256i Sixteens32(__m256i words, uint64_t bytes0, uint64_t bytes1) {
    const __m256i bytes = _mm256_shuffle_epi8(
        words, _mm256_set_epi64x(static_cast<int64_t>(bytes1), static_cast<int64_t>(bytes0),
                                 static_cast<int64_t>(bytes1), static_cast<int64_t>(bytes0)));
    const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
  }
  static TERN_INLINE B Sixteens(uint32_t w0, uint32_t w1) {
    const __m256i words =
        Both(_mm_cvtsi32_si128(static_cast<int>(w0)), _mm_cvtsi32_si128(static_cast<int>(w1)));
    return {Sixteens32(words, 0, 0x0101010101010101),
            Sixteens32(words, 0x0202020202020202, 0x0303030303030303)};
  }

  // Codes are below 64: the pairs that vpmaddubsw adds stay below 2^15.
  static TERN_INLINE __m256i Dot32(__m256i codes, const int8_t* high, const int8_t* low) {
    const __m256i h = _mm256_maddubs_epi16(codes, Load256(high));
    const __m256i l = _mm256_maddubs_epi16(codes, Load256(low));
    return _mm256_add_epi32(_mm256_madd_epi16(h, _mm256_set1_epi16(256)),
                            _mm256_madd_epi16(l, _mm256_set1_epi16(1)));
  }
  static TERN_INLINE I Dot(B codes, const int8_t* high, const int8_t* low) {
    return {Dot32(codes.a, high, low), Dot32(codes.b, high + 32, low + 32)};
  }

  static TERN_INLINE float Half(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return _cvtsh_ss(bits);
  }
  static TERN_INLINE F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static TERN_INLINE F Load(const float* p) { return {_mm256_load_ps(p), _mm256_load_ps(p + 8)}; }
  static TERN_INLINE F LoadAny(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  static TERN_INLINE void Store(float* p, F v) {
    _mm256_store_ps(p, v.a);
    _mm256_store_ps(p + 8, v.b);
  }
  // 16 lanes to 8 to 4, as JoinLanes adds (common/join_four.h).
  static TERN_INLINE __m128 Fold(F v) {
    const __m256 eight = _mm256_add_ps(v.a, v.b);
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  }
  static TERN_INLINE F Broadcast(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
  static TERN_INLINE float FirstLane(F v) { return _mm256_cvtss_f32(v.a); }
  static TERN_INLINE F Fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)};
  }
  static TERN_INLINE F Mul(F a, F b) { return {_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)}; }
  static TERN_INLINE F ToFloat(I v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
  static TERN_INLINE F FromUnsigned(Bytes16 sixteen) {
    const auto bytes = (__m128i)sixteen;
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  static TERN_INLINE F FromSigned(Bytes16 sixteen) {
    const auto bytes = (__m128i)sixteen;
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  // Lanes 4 q .. 4 q + 3 twice, and two of those, each four times: permutations within halves of
  // registers are cheaper than across, and the compiler makes Four once for several chunks.
  template <int q>
  static TERN_INLINE __m256 Four(F v) {
    const __m256 half = q < 2 ? v.a : v.b;
    return _mm256_permute2f128_ps(half, half, q % 2 == 0 ? 0x00 : 0x11);
  }
  template <int lane0, int lane1>
  static TERN_INLINE __m256 TwoOf(__m256 four) {
    return _mm256_permutevar_ps(
        four, _mm256_set_epi32(lane1, lane1, lane1, lane1, lane0, lane0, lane0, lane0));
  }
  template <int c>
  static TERN_INLINE F Spread(F v) {
    const __m256 four = Four<c>(v);
    return {TwoOf<0, 1>(four), TwoOf<2, 3>(four)};
  }
  template <int c>
  static TERN_INLINE F Spread32(F v) {  // REQUIRES: 2 c + 1 < 8, the lanes of the first register
    constexpr int kLane = 2 * c % 4;
    const __m256 four = Four<c / 2>(v);
    return {_mm256_permute_ps(four, kLane * 0x55), _mm256_permute_ps(four, (kLane + 1) * 0x55)};
  }
  static TERN_INLINE F HalvesOf(const uint8_t* p) {
    const __m128 two = _mm_cvtph_ps(_mm_loadu_si32(p));
    const __m128 signs = _mm_xor_ps(two, _mm_setr_ps(0.0f, -0.0f, 0.0f, 0.0f));
    return {_mm256_broadcastss_ps(signs), _mm256_broadcastss_ps(_mm_movehdup_ps(signs))};
  }

  // For QuantizeInt16.
  static TERN_INLINE F Max(F a, F b) { return {_mm256_max_ps(a.a, b.a), _mm256_max_ps(a.b, b.b)}; }
  static TERN_INLINE F Abs(F v) {
    const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    return {_mm256_and_ps(v.a, mask), _mm256_and_ps(v.b, mask)};
  }
  static TERN_INLINE float MaxLane(F v) {
    const __m256 both = _mm256_max_ps(v.a, v.b);
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static TERN_INLINE int SumLanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
  }
  static TERN_INLINE void StoreBytes(__m256i a, __m256i b, int8_t* p) {
    // Packing works on the halves of registers: the permutation puts the words back in order.
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_store_si128(reinterpret_cast<__m128i*>(p), bytes);
  }
  static TERN_INLINE float SplitBytes(F v, int8_t* high, int8_t* low) {
    const __m256i q0 = _mm256_cvtps_epi32(v.a), q1 = _mm256_cvtps_epi32(v.b);
    const __m256i round = _mm256_set1_epi32(128);
    const __m256i h0 = _mm256_srai_epi32(_mm256_add_epi32(q0, round), 8);
    const __m256i h1 = _mm256_srai_epi32(_mm256_add_epi32(q1, round), 8);
    StoreBytes(h0, h1, high);
    StoreBytes(_mm256_sub_epi32(q0, _mm256_slli_epi32(h0, 8)),
               _mm256_sub_epi32(q1, _mm256_slli_epi32(h1, 8)), low);
    return static_cast<float>(SumLanes(_mm256_add_epi32(q0, q1)));
  }
};

}  // namespace tern::kernels
