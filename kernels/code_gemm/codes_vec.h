// The codes of GGUF taken apart in registers, for code_gemm_avx2.cc and code_gemm_avx512.cc. V
// (bytes64_avx2.h, bytes64_avx512.h) works on 64 codes as bytes and on 16 lanes of floats. Each
// C<V> describes 256 weights:
//   kBytes; Load(block) reads scales; Codes<c>() the codes of weights 64 c .. 64 c + 63 in their
//   order; Scales(x) and Shifts(x, scales): s' and t' of code_gemm.h, x the token's scale in every
//   lane.
// Layouts: docs/formats/block_codecs.md.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/common/inline.h"

namespace tern::kernels {

static TERN_INLINE uint32_t Load32(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

static TERN_INLINE float HalfAt(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return _cvtsh_ss(bits);
}

// The halves at p, p + stride, ... as one register.
template <int stride>
static TERN_INLINE __m128i GatherHalves(const uint8_t* p) {
  const auto half = [p](int i) {
    int16_t bits;
    std::memcpy(&bits, p + i * stride, sizeof bits);
    return bits;
  };
  return _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7));
}

// Q4_0 (kBits 4) and Q5_0 (5): w = d (code - zero), eight blocks of 32.
template <class V, int kBits>
struct SmallCode {
  using F = typename V::F;
  static constexpr int kBlock = kBits == 4 ? 18 : 22, kBytes = 8 * kBlock;
  const uint8_t* p;
  F d;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    d = V::Doubled(GatherHalves<kBlock>(block));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    const uint8_t *p0 = p + 2 * c * kBlock + 2, *p1 = p0 + kBlock;
    if constexpr (kBits == 4) return V::Nibbles16(p0, p1);
    return V::Or(V::Nibbles16(p0 + 4, p1 + 4), V::Sixteens(Load32(p0), Load32(p1)));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(d, V::Broadcast(x)); }
  TERN_INLINE F Shifts(float, F scales) const {
    return V::Mul(scales, V::Broadcast(kBits == 4 ? -8.0f : -16.0f));
  }
};

// Q4_1 and Q5_1: w = d code + m.
template <class V, int kBits>
struct ShiftedSmallCode {
  using F = typename V::F;
  static constexpr int kBlock = kBits == 4 ? 20 : 24, kBytes = 8 * kBlock;
  const uint8_t* p;
  F d, m;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    d = V::Doubled(GatherHalves<kBlock>(block));
    m = V::Doubled(GatherHalves<kBlock>(block + 2));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    const uint8_t *p0 = p + 2 * c * kBlock + 4, *p1 = p0 + kBlock;
    if constexpr (kBits == 4) return V::Nibbles16(p0, p1);
    return V::Or(V::Nibbles16(p0 + 4, p1 + 4), V::Sixteens(Load32(p0), Load32(p1)));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(d, V::Broadcast(x)); }
  TERN_INLINE F Shifts(float x, F) const { return V::Mul(m, V::Broadcast(x)); }
};

template <class V>
using CodeQ4_0 = SmallCode<V, 4>;
template <class V>
using CodeQ5_0 = SmallCode<V, 5>;
template <class V>
using CodeQ4_1 = ShiftedSmallCode<V, 4>;
template <class V>
using CodeQ5_1 = ShiftedSmallCode<V, 5>;

// The 12 bytes of Q4_K and Q5_K: eight scales and eight minima of 6 bits. The first four of each
// are the low six bits of bytes 0-3 and 4-7; of the others the low four bits are in bytes 8-11 and
// the high two on top of bytes 0-7. Each comes out twice: it is of 32 weights, a lane of 16.
static TERN_INLINE void UnpackSixBits(const uint8_t* packed, __m128i* scales, __m128i* mins) {
  const uint32_t a = Load32(packed), b = Load32(packed + 4), c = Load32(packed + 8);
  const uint64_t sc =
      (a & 0x3F3F3F3Fu) | static_cast<uint64_t>((c & 0x0F0F0F0Fu) | (a >> 2 & 0x30303030u)) << 32;
  const uint64_t mn = (b & 0x3F3F3F3Fu) |
                      static_cast<uint64_t>((c >> 4 & 0x0F0F0F0Fu) | (b >> 2 & 0x30303030u)) << 32;
  const __m128i s = _mm_cvtsi64_si128(static_cast<int64_t>(sc));
  const __m128i m = _mm_cvtsi64_si128(static_cast<int64_t>(mn));
  *scales = _mm_unpacklo_epi8(s, s);
  *mins = _mm_unpacklo_epi8(m, m);
}

// 32 bytes hold 64 weights: low halves, then high halves.
template <class V>
struct CodeQ4K {
  using F = typename V::F;
  static constexpr int kBytes = 144;
  const uint8_t* p;
  float d, dmin;
  F scales, mins;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 16;
    __m128i s, m;
    UnpackSixBits(block + 4, &s, &m);
    d = HalfAt(block);
    dmin = HalfAt(block + 2);
    scales = V::FromUnsigned(s);
    mins = V::FromUnsigned(m);
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    return V::template Planes32<0, 4, 15>(p + 32 * c);
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(V::Broadcast(d * x), scales); }
  TERN_INLINE F Shifts(float x, F) const { return V::Mul(V::Broadcast(-(dmin * x)), mins); }
};

// As Q4_K, with the fifth bit of 32 weights s at bit s of 32 bytes.
template <class V>
struct CodeQ5K : CodeQ4K<V> {
  static constexpr int kBytes = 176;
  const uint8_t* fifths;
  TERN_INLINE void Load(const uint8_t* block) {
    CodeQ4K<V>::Load(block);
    this->p = block + 48;
    fifths = block + 16;
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    const auto fifth = V::template Planes32<2 * c, 2 * c + 1, 1>(fifths);
    return V::Or(CodeQ4K<V>::template Codes<c>(), V::template Shl<4>(fifth));
  }
};

// 64 bytes of low halves and 32 of high pairs hold 128 weights.
template <class V>
struct CodeQ6K {
  using F = typename V::F;
  static constexpr int kBytes = 210;
  const uint8_t* p;
  float d;
  F scales;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    d = HalfAt(block + 208);
    scales = V::FromSigned(V::Load128(block + 192));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    constexpr int half = c / 2, pair = c % 2;
    const auto low = V::template Shr64<4 * pair, 15>(p + 64 * half);
    const auto high = V::template Planes32<4 * pair, 4 * pair + 2, 3>(p + 128 + 32 * half);
    return V::Or(low, V::template Shl<4>(high));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(V::Broadcast(d * x), scales); }
  TERN_INLINE F Shifts(float, F s) const { return V::Mul(s, V::Broadcast(-32.0f)); }
};

// 32 bytes hold 128 weights, byte l the weights l + 32 j at bits 2 j.
template <class V>
struct CodeQ2K {
  using F = typename V::F;
  static constexpr int kBytes = 84;
  const uint8_t* p;
  float d, dmin;
  F scales, mins;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 16;
    const __m128i both = V::Load128(block), low = _mm_set1_epi8(15);
    d = HalfAt(block + 80);
    dmin = HalfAt(block + 82);
    scales = V::FromUnsigned(_mm_and_si128(both, low));
    mins = V::FromUnsigned(_mm_and_si128(_mm_srli_epi16(both, 4), low));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    return V::template Planes32<4 * (c % 2), 4 * (c % 2) + 2, 3>(p + 32 * (c / 2));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(V::Broadcast(d * x), scales); }
  TERN_INLINE F Shifts(float x, F) const { return V::Mul(V::Broadcast(-(dmin * x)), mins); }
};

// As Q2_K with a third bit, that of 32 weights j at bit j of 32 bytes. Scales of 6 bits, + 32: the
// low four bits are the halves of bytes 0-7, the high two those of bytes 8-11, by fours.
template <class V>
struct CodeQ3K {
  using F = typename V::F;
  static constexpr int kBytes = 110;
  const uint8_t* p;
  float d;
  F scales;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    const uint32_t a = Load32(block + 96), b = Load32(block + 100), c = Load32(block + 104);
    const __m128i six =
        _mm_setr_epi32(static_cast<int>((a & 0x0F0F0F0Fu) | (c << 4 & 0x30303030u)),
                       static_cast<int>((b & 0x0F0F0F0Fu) | (c << 2 & 0x30303030u)),
                       static_cast<int>((a >> 4 & 0x0F0F0F0Fu) | (c & 0x30303030u)),
                       static_cast<int>((b >> 4 & 0x0F0F0F0Fu) | (c >> 2 & 0x30303030u)));
    d = HalfAt(block + 108);
    scales = V::FromSigned(_mm_sub_epi8(six, _mm_set1_epi8(32)));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    const auto low = V::template Planes32<4 * (c % 2), 4 * (c % 2) + 2, 3>(p + 32 + 32 * (c / 2));
    return V::Or(low, V::template Shl<2>(V::template Planes32<2 * c, 2 * c + 1, 1>(p)));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(V::Broadcast(d * x), scales); }
  TERN_INLINE F Shifts(float, F s) const { return V::Mul(s, V::Broadcast(-4.0f)); }
};

}  // namespace tern::kernels
