// The codes of GGUF taken apart in registers, for the vector versions of code_gemm. V
// (bytes64_avx2.h, bytes64_avx512.h, bytes64_neon.h) works on 64 codes as bytes and on 16 lanes of
// floats. Each C<V> describes 256 weights:
//   kBytes; Load(block) reads scales; Codes<c>() the codes of weights 64 c .. 64 c + 63 in their
//   order; Scales(x) and Shifts(x, scales): s' and t' of code_gemm.h, x the token's scale in every
//   lane; SpreadOf<c>(scales) and SumsOf(token): the scale of each lane of Codes<c>, the sums that
//   meet the shifts (ScalesOf16, ScalesOf32); Factors() and kZero: s' and t' without the token.
// Layouts: docs/formats/block_codecs.md.
#pragma once

#include "kernels/code_gemm/block_fields.h"
#include "kernels/code_gemm/code_gemm.h"
#include "kernels/code_gemm/int16_tokens.h"
#include "kernels/common/inline.h"

namespace tern::kernels {

// What s' and t' are made of, x the token's scale: s' = (factor x) scales, t' = ((shift_factors x)
// shifts) kZero, rounded in this order as Scales and Shifts do.
template <class V>
struct CodeFactors {
  typename V::F scales, shifts, shift_factors;
  float factor;
};

// Lane l is of 16 weights.
template <class V>
struct ScalesOf16 {
  template <int c>
  static TERN_INLINE typename V::F SpreadOf(typename V::F scales) {
    return V::template Spread<c>(scales);
  }
  static TERN_INLINE const float* SumsOf(const Int16Block& x) { return x.sums; }
  static TERN_INLINE const int8_t* HighOf(const Int16Block& x) { return x.high; }
  static TERN_INLINE const int8_t* LowOf(const Int16Block& x) { return x.low; }
  static TERN_INLINE typename V::F InOrder(typename V::F lanes) { return lanes; }
};
// Eight scales of blocks of 32, d in V::Blocks8; lanes lie as V has the two halves of such blocks.
template <class V>
struct ScalesOfBlocks {
  using F = typename V::F;
  template <int c>
  static TERN_INLINE F SpreadOf(F scales) {
    return V::template SpreadBlocks<c>(scales);
  }
  static TERN_INLINE const float* SumsOf(const Int16Block& x) { return V::BlockSums(x); }
  static TERN_INLINE const int8_t* HighOf(const Int16Block& x) { return V::BlockHigh(x); }
  static TERN_INLINE const int8_t* LowOf(const Int16Block& x) { return V::BlockLow(x); }
  static TERN_INLINE F InOrder(F lanes) { return V::BlockLanesInOrder(lanes); }
};
// Lanes 0 to 7 are scales of 32 weights, 8 to 15 their shifts.
template <class V>
struct ScalesOf32 {
  template <int c>
  static TERN_INLINE typename V::F SpreadOf(typename V::F scales) {
    return V::template Spread32<c>(scales);
  }
  static TERN_INLINE const float* SumsOf(const Int16Block& x) { return x.pair_sums; }
  static TERN_INLINE const int8_t* HighOf(const Int16Block& x) { return x.high; }
  static TERN_INLINE const int8_t* LowOf(const Int16Block& x) { return x.low; }
  static TERN_INLINE typename V::F InOrder(typename V::F lanes) { return lanes; }
};

// Q4_0 (kBits 4) and Q5_0 (5): w = d (code - zero), eight blocks of 32.
template <class V, int kBits>
struct SmallCode : ScalesOfBlocks<V> {
  using F = typename V::F;
  static constexpr int kBlock = kBits == 4 ? 18 : 22, kBytes = 8 * kBlock;
  static constexpr float kZero = kBits == 4 ? -8.0f : -16.0f;
  const uint8_t* p;
  F d;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    d = V::Blocks8(GatherHalves<kBlock>(block));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    const uint8_t *p0 = p + 2 * c * kBlock + 2, *p1 = p0 + kBlock;
    if constexpr (kBits == 4) return V::Nibbles16(p0, p1);
    return V::Or(V::Nibbles16(p0 + 4, p1 + 4), V::Sixteens(Load32(p0), Load32(p1)));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(d, V::Broadcast(x)); }
  TERN_INLINE F Shifts(float, F scales) const {
    return V::BlockLanes(V::Mul(scales, V::Broadcast(kZero)));
  }
  TERN_INLINE CodeFactors<V> Factors() const { return {d, d, V::Broadcast(1.0f), 1.0f}; }
};

// Q4_1 and Q5_1: w = d code + m.
template <class V, int kBits>
struct ShiftedSmallCode : ScalesOfBlocks<V> {
  using F = typename V::F;
  static constexpr int kBlock = kBits == 4 ? 20 : 24, kBytes = 8 * kBlock;
  static constexpr float kZero = 1.0f;
  const uint8_t* p;
  F d, m;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    d = V::Blocks8(GatherHalves<kBlock>(block));
    m = V::Blocks8(GatherHalves<kBlock>(block + 2));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    const uint8_t *p0 = p + 2 * c * kBlock + 4, *p1 = p0 + kBlock;
    if constexpr (kBits == 4) return V::Nibbles16(p0, p1);
    return V::Or(V::Nibbles16(p0 + 4, p1 + 4), V::Sixteens(Load32(p0), Load32(p1)));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(d, V::Broadcast(x)); }
  TERN_INLINE F Shifts(float x, F) const { return V::BlockLanes(V::Mul(m, V::Broadcast(x))); }
  TERN_INLINE CodeFactors<V> Factors() const { return {d, m, V::Broadcast(1.0f), 1.0f}; }
};

template <class V>
using CodeQ4_0 = SmallCode<V, 4>;
template <class V>
using CodeQ5_0 = SmallCode<V, 5>;
template <class V>
using CodeQ4_1 = ShiftedSmallCode<V, 4>;
template <class V>
using CodeQ5_1 = ShiftedSmallCode<V, 5>;

// 32 bytes hold 64 weights: low halves, then high halves.
template <class V>
struct CodeQ4K : ScalesOf32<V> {
  using F = typename V::F;
  static constexpr int kBytes = 144;
  static constexpr float kZero = 1.0f;
  const uint8_t* p;
  F factors, sixes;  // d and -dmin; scales and minima
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 16;
    factors = V::HalvesOf(block);
    sixes = V::FromUnsigned(UnpackSixBits(block));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    return V::template Planes32<0, 4, 15>(p + 32 * c);
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(V::Mul(factors, V::Broadcast(x)), sixes); }
  TERN_INLINE F Shifts(float, F scales) const { return scales; }
  TERN_INLINE CodeFactors<V> Factors() const {
    return {sixes, sixes, factors, V::FirstLane(factors)};
  }
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
struct CodeQ6K : ScalesOf16<V> {
  using F = typename V::F;
  static constexpr int kBytes = 210;
  static constexpr float kZero = -32.0f;
  const uint8_t* p;
  float d;
  F scales;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    d = V::Half(block + 208);
    scales = V::FromSigned(Load16(block + 192));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    constexpr int half = c / 2, pair = c % 2;
    const auto low = V::template Shr64<4 * pair, 15>(p + 64 * half);
    const auto high = V::template Planes32<4 * pair, 4 * pair + 2, 3>(p + 128 + 32 * half);
    return V::Or(low, V::template Shl<4>(high));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(V::Broadcast(d * x), scales); }
  TERN_INLINE F Shifts(float, F s) const { return V::Mul(s, V::Broadcast(kZero)); }
  TERN_INLINE CodeFactors<V> Factors() const { return {scales, scales, V::Broadcast(d), d}; }
};

// 32 bytes hold 128 weights, byte l the weights l + 32 j at bits 2 j.
template <class V>
struct CodeQ2K : ScalesOf16<V> {
  using F = typename V::F;
  static constexpr int kBytes = 84;
  static constexpr float kZero = 1.0f;
  const uint8_t* p;
  float d, dmin;
  F scales, mins;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 16;
    const Bytes16 both = Load16(block);
    d = V::Half(block + 80);
    dmin = V::Half(block + 82);
    scales = V::FromUnsigned(both & 15);
    mins = V::FromUnsigned(both >> 4);
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    return V::template Planes32<4 * (c % 2), 4 * (c % 2) + 2, 3>(p + 32 * (c / 2));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(V::Broadcast(d * x), scales); }
  TERN_INLINE F Shifts(float x, F) const { return V::Mul(V::Broadcast(-(dmin * x)), mins); }
  TERN_INLINE CodeFactors<V> Factors() const { return {scales, mins, V::Broadcast(-dmin), d}; }
};

// As Q2_K with a third bit, that of 32 weights j at bit j of 32 bytes.
template <class V>
struct CodeQ3K : ScalesOf16<V> {
  using F = typename V::F;
  static constexpr int kBytes = 110;
  static constexpr float kZero = -4.0f;
  const uint8_t* p;
  float d;
  F scales;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    d = V::Half(block + 108);
    scales = V::FromSigned(UnpackQ3KScales(block + 96));
  }
  template <int c>
  TERN_INLINE typename V::B Codes() const {
    const auto low = V::template Planes32<4 * (c % 2), 4 * (c % 2) + 2, 3>(p + 32 + 32 * (c / 2));
    return V::Or(low, V::template Shl<2>(V::template Planes32<2 * c, 2 * c + 1, 1>(p)));
  }
  TERN_INLINE F Scales(float x) const { return V::Mul(V::Broadcast(d * x), scales); }
  TERN_INLINE F Shifts(float, F s) const { return V::Mul(s, V::Broadcast(kZero)); }
  TERN_INLINE CodeFactors<V> Factors() const { return {scales, scales, V::Broadcast(d), d}; }
};

// Calls body.operator()<C>() with the description of `type`.
template <class V, class Body>
static TERN_INLINE void WithCodeType(CodeType type, const Body& body) {
  switch (type) {
    case CodeType::kQ4_0:
      return body.template operator()<CodeQ4_0<V>>();
    case CodeType::kQ4_1:
      return body.template operator()<CodeQ4_1<V>>();
    case CodeType::kQ5_0:
      return body.template operator()<CodeQ5_0<V>>();
    case CodeType::kQ5_1:
      return body.template operator()<CodeQ5_1<V>>();
    case CodeType::kQ2K:
      return body.template operator()<CodeQ2K<V>>();
    case CodeType::kQ3K:
      return body.template operator()<CodeQ3K<V>>();
    case CodeType::kQ4K:
      return body.template operator()<CodeQ4K<V>>();
    case CodeType::kQ5K:
      return body.template operator()<CodeQ5K<V>>();
    case CodeType::kQ6K:
      return body.template operator()<CodeQ6K<V>>();
    case CodeType::kQ8_0:  // Not here: code_gemm.h
      return;
  }
}

}  // namespace tern::kernels
