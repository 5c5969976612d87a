// The codes of GGUF taken apart in registers, for the vector versions of code8_gemm. V
// (pairs_avx2.h, pairs_neon.h) works on B, 32 codes as bytes in two halves of 16, and on F, eight
// floats. Each C<V> describes 256 weights:
//   kBytes, kBits; kZero: of code8_gemm.h, 0 where there are shifts; kLanes: 8 or 16
//   Load(block) reads scales into s and, where kZero is 0, shifts into t (kMinus: their negatives)
//   Codes<v>(): the codes that meet row v (0..7) of 32 activations, `paired` for 8 lanes, `natural`
//   for 16
// Layouts: docs/formats/block_codecs.md.
#pragma once

#include "kernels/code8_gemm/int8_tokens.h"
#include "kernels/code_gemm/block_fields.h"
#include "kernels/code_gemm/code_gemm.h"
#include "kernels/common/inline.h"

namespace tern::kernels {

// Types of one scale for 32 weights: row v is of the 32 v / 2 and v / 2 + 4, half v % 2 of each.
struct CodesOf32 {
  static constexpr int kLanes = 8;
  static const int8_t* Order(const Int8Block& x) { return x.paired; }
  static const float* Scale(const Int8Block& x) { return x.scale; }
  static const float* Sum(const Int8Block& x) { return x.sum; }
  static const float* ScaledSum(const Int8Block& x) { return x.scaled_sum; }
};

// Of one scale for 16: row v is of the groups 2 v and 2 v + 1.
struct CodesOf16 {
  static constexpr int kLanes = 16;
  static const int8_t* Order(const Int8Block& x) { return x.natural; }
  static const float* Scale(const Int8Block& x) { return x.scale16; }
  static const float* Sum(const Int8Block& x) { return x.sum16; }
  static const float* ScaledSum(const Int8Block& x) { return x.scaled_sum16; }

  // Groups in their order to the order of lanes (LaneOf16).
  static TERN_INLINE Bytes16 InLanes(Bytes16 b) {
    return __builtin_shufflevector(b, b, 0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  }
};

// The bits of Q4_0 to Q5_1 in a block of 32 at p: 4 fifth bits bytes (kBits 5), then 16 bytes with
// weight i low and i + 16 high. At p + 4 `block` bytes the block that shares the register.
template <class V, int kBits, int v>
static TERN_INLINE typename V::B SmallCodes(const uint8_t* p, int block) {
  const uint8_t *p0 = p, *p1 = p + 4 * block;
  constexpr int kFifths = kBits == 5 ? 4 : 0;
  const auto four = V::template Shr<4 * (v % 2), 15>(V::Halves(p0 + kFifths, p1 + kFifths));
  if constexpr (kBits == 4)
    return four;
  else
    return V::Or(four, V::template Sixteens<v % 2>(Load32(p0), Load32(p1)));
}

// Q4_0 and Q5_0: w = d (code - zero), eight blocks of 32.
template <class V, int bits>
struct PlainCodes : CodesOf32 {
  static constexpr int kBits = bits, kBlock = bits == 4 ? 18 : 22, kBytes = 8 * kBlock;
  static constexpr int kZero = bits == 4 ? 8 : 16;
  const uint8_t* p;
  typename V::F s[1];
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 2;
    s[0] = V::FromHalves(GatherHalves<kBlock>(block));
  }
  template <int v>
  TERN_INLINE typename V::B Codes() const {
    return SmallCodes<V, bits, v>(p + v / 2 * kBlock, kBlock);
  }
};

// Q4_1 and Q5_1: w = d code + m.
template <class V, int bits>
struct ShiftedCodes : CodesOf32 {
  static constexpr int kBits = bits, kBlock = bits == 4 ? 20 : 24, kBytes = 8 * kBlock, kZero = 0;
  static constexpr bool kMinus = false;
  const uint8_t* p;
  typename V::F s[1], t[1];
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 4;
    s[0] = V::FromHalves(GatherHalves<kBlock>(block));
    t[0] = V::FromHalves(GatherHalves<kBlock>(block + 2));
  }
  template <int v>
  TERN_INLINE typename V::B Codes() const {
    return SmallCodes<V, bits, v>(p + v / 2 * kBlock, kBlock);
  }
};

// Q8_0: w = d code, signed bytes: what the oracle calls byte + 128 with a zero of 128.
template <class V>
struct ByteCodes : CodesOf32 {
  static constexpr int kBits = 8, kBlock = 34, kBytes = 8 * kBlock, kZero = 128;
  const uint8_t* p;
  typename V::F s[1];
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 2;
    s[0] = V::FromHalves(GatherHalves<kBlock>(block));
  }
  template <int v>
  TERN_INLINE typename V::B Codes() const {
    const uint8_t* p0 = p + v / 2 * kBlock + v % 2 * 16;
    return V::Halves(p0, p0 + 4 * kBlock);
  }
};

// Q4_K: 32 bytes hold 64 weights, low halves, then high halves.
template <class V>
struct Codes4K : CodesOf32 {
  static constexpr int kBits = 4, kBytes = 144, kZero = 0;
  static constexpr bool kMinus = true;
  const uint8_t* p;
  typename V::F s[1], t[1];
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 16;
    const Bytes16 sixes = UnpackSixBits(block);
    s[0] = V::Mul(V::HalfEverywhere(block), V::template FromUnsigned<0>(sixes));
    t[0] = V::Mul(V::HalfEverywhere(block + 2), V::template FromUnsigned<1>(sixes));
  }
  template <int v>
  TERN_INLINE typename V::B Codes() const {
    const uint8_t* p0 = p + v / 4 * 32 + v % 2 * 16;
    return V::template Shr<v / 2 % 2 * 4, 15>(V::Halves(p0, p0 + 64));
  }
};

// Q5_K: as Q4_K, with the fifth bit of the 32 j at bit j of 32 bytes.
template <class V>
struct Codes5K : Codes4K<V> {
  static constexpr int kBits = 5, kBytes = 176;
  typename V::B fifths[2];  // Of the 32 0 to 3 from bit 4 on, of 4 to 7 too
  TERN_INLINE void Load(const uint8_t* block) {
    Codes4K<V>::Load(block);
    this->p = block + 48;
    for (int h = 0; h < 2; ++h) fifths[h] = V::LowToHigh(block + 16 + 16 * h);
  }
  template <int v>
  TERN_INLINE typename V::B Codes() const {
    const auto fifth = V::template Shr<v / 2, 16>(fifths[v % 2]);
    return V::Or(Codes4K<V>::template Codes<v>(), fifth);
  }
};

// Q6_K: 64 bytes of low halves and 32 of high pairs hold 128 weights.
template <class V>
struct Codes6K : CodesOf16 {
  static constexpr int kBits = 6, kBytes = 210, kZero = 32;
  const uint8_t* p;
  typename V::F s[2];
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    const Bytes16 scales = InLanes(Load16(block + 192));
    const auto d = V::HalfEverywhere(block + 208);
    s[0] = V::Mul(d, V::template FromSigned<0>(scales));
    s[1] = V::Mul(d, V::template FromSigned<1>(scales));
  }
  template <int v>
  TERN_INLINE typename V::B Codes() const {
    constexpr int half = v / 4, g = v % 4;
    const auto low = V::template Shr<g / 2 * 4, 15>(V::Load(p + 64 * half + g % 2 * 32));
    const auto high = V::template Shr<2 * g, 3>(V::Load(p + 128 + 32 * half));
    return V::Or(low, V::template Shl<4>(high));
  }
};

// Q2_K: 32 bytes hold 128 weights, byte l the weights l + 32 j at bits 2 j.
template <class V>
struct Codes2K : CodesOf16 {
  static constexpr int kBits = 2, kBytes = 84, kZero = 0;
  static constexpr bool kMinus = true;
  const uint8_t* p;
  typename V::F s[2], t[2];
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 16;
    const Bytes16 both = InLanes(Load16(block)), scales = both & 15, mins = both >> 4;
    const auto d = V::HalfEverywhere(block + 80), dmin = V::HalfEverywhere(block + 82);
    s[0] = V::Mul(d, V::template FromUnsigned<0>(scales));
    s[1] = V::Mul(d, V::template FromUnsigned<1>(scales));
    t[0] = V::Mul(dmin, V::template FromUnsigned<0>(mins));
    t[1] = V::Mul(dmin, V::template FromUnsigned<1>(mins));
  }
  template <int v>
  TERN_INLINE typename V::B Codes() const {
    return V::template Shr<v % 4 * 2, 3>(V::Load(p + v / 4 * 32));
  }
};

// Q3_K: as Q2_K with a third bit, that of 32 weights v at bit v of 32 bytes.
template <class V>
struct Codes3K : CodesOf16 {
  static constexpr int kBits = 3, kBytes = 110, kZero = 4;
  const uint8_t* p;
  typename V::F s[2];
  TERN_INLINE void Load(const uint8_t* block) {
    p = block;
    const Bytes16 scales = InLanes(UnpackQ3KScales(block + 96));
    const auto d = V::HalfEverywhere(block + 108);
    s[0] = V::Mul(d, V::template FromSigned<0>(scales));
    s[1] = V::Mul(d, V::template FromSigned<1>(scales));
  }
  template <int v>
  TERN_INLINE typename V::B Codes() const {
    const auto low = V::template Shr<v % 4 * 2, 3>(V::Load(p + 32 + v / 4 * 32));
    return V::Or(low, V::template Shl<2>(V::template Shr<v, 1>(V::Load(p))));
  }
};

// Calls body.operator()<C>() with the description of `type`.
template <class V, class Body>
static TERN_INLINE void WithCodes8(CodeType type, const Body& body) {
  switch (type) {
    case CodeType::kQ4_0:
      return body.template operator()<PlainCodes<V, 4>>();
    case CodeType::kQ4_1:
      return body.template operator()<ShiftedCodes<V, 4>>();
    case CodeType::kQ5_0:
      return body.template operator()<PlainCodes<V, 5>>();
    case CodeType::kQ5_1:
      return body.template operator()<ShiftedCodes<V, 5>>();
    case CodeType::kQ8_0:
      return body.template operator()<ByteCodes<V>>();
    case CodeType::kQ2K:
      return body.template operator()<Codes2K<V>>();
    case CodeType::kQ3K:
      return body.template operator()<Codes3K<V>>();
    case CodeType::kQ4K:
      return body.template operator()<Codes4K<V>>();
    case CodeType::kQ5K:
      return body.template operator()<Codes5K<V>>();
    case CodeType::kQ6K:
      return body.template operator()<Codes6K<V>>();
  }
}

}  // namespace tern::kernels
