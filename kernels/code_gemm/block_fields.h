// Fields of GGUF's blocks in the compiler's own vector types, which every processor of the fast
// paths has: scales and other small numbers, for the vector versions of code_gemm and code8_gemm.
// Layouts: docs/formats/block_codecs.md.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/inline.h"

namespace tern::kernels {

static TERN_INLINE uint32_t Load32(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef int16_t Halves8 __attribute__((vector_size(16)));
typedef uint32_t Words4 __attribute__((vector_size(16)));

template <class V16 = Bytes16>
static TERN_INLINE V16 Load16(const void* p) {
  V16 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// The halves at p, p + stride, ... as one register. REQUIRES: 16 bytes can be read at each.
template <int stride>
static TERN_INLINE Halves8 GatherHalves(const uint8_t* p) {
  const auto two = [p](int i) {  // At i and i + 1, in the first word
    return (Words4)__builtin_shufflevector(Load16<Halves8>(p + i * stride),
                                           Load16<Halves8>(p + (i + 1) * stride), 0, 8, 1, 9, 2, 10,
                                           3, 11);
  };
  const Words4 low = __builtin_shufflevector(two(0), two(2), 0, 4, 1, 5);
  const Words4 high = __builtin_shufflevector(two(4), two(6), 0, 4, 1, 5);
  return (Halves8)__builtin_shufflevector(low, high, 0, 1, 4, 5);
}

// The first 16 bytes of Q4_K and Q5_K: d, dmin, then eight scales and eight minima of 6 bits. The
// first four of each are the low six bits of the words 1 and 2; of the others the low four bits are
// the halves of word 3 and the high two lie on top of the words 1 and 2. They come out in order,
// scales first.
static TERN_INLINE Bytes16 UnpackSixBits(const uint8_t* block) {
  const auto v = Load16<Words4>(block);
  const Words4 own = __builtin_shufflevector(v, v, 1, 1, 2, 2) >> Words4{0, 2, 0, 2};
  const Words4 shared = __builtin_shufflevector(v, v, 3, 3, 3, 3) >> Words4{0, 0, 0, 4};
  const Words4 six = (own & Words4{0x3F3F3F3F, 0x30303030, 0x3F3F3F3F, 0x30303030}) |
                     (shared & Words4{0, 0x0F0F0F0F, 0, 0x0F0F0F0F});
  return Load16(&six);
}

// The 16 scales of Q3_K, signed bytes: six bits each, + 32; the low four bits are the halves of
// bytes 0-7 at p, the high two those of bytes 8-11, by fours.
static TERN_INLINE Bytes16 UnpackQ3KScales(const uint8_t* p) {
  const uint32_t a = Load32(p), b = Load32(p + 4), c = Load32(p + 8);
  const Words4 words = {
      (a & 0x0F0F0F0Fu) | (c << 4 & 0x30303030u), (b & 0x0F0F0F0Fu) | (c << 2 & 0x30303030u),
      (a >> 4 & 0x0F0F0F0Fu) | (c & 0x30303030u), (b >> 4 & 0x0F0F0F0Fu) | (c >> 2 & 0x30303030u)};
  return Load16(&words) - 32;
}

}  // namespace tern::kernels
