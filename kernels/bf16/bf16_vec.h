// The bfloat16 conversions on vectors of W words, for bf16_avx2.cc,
// bf16_avx512.cc and bf16_neon.cc.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/vec.h"

namespace tern::kernels {

template <int W>
struct Bf16Vec {
  using U = typename Vec<W>::U;
  typedef uint16_t Half __attribute__((vector_size(2 * W)));

  static inline __attribute__((always_inline)) U LoadBits(const float* p) {
    U bits;
    std::memcpy(&bits, p, sizeof(bits));
    return bits;
  }

  // The bfloat16 in the upper halves; the lower ones are arbitrary.
  static inline __attribute__((always_inline)) U Round(U bits) {
    const U rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
    const U quiet = bits | 0x400000u;
    return (bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded;
  }

  static void RoundAll(const float* x, int64_t count, float* out) {
    ForEachVector(x, count, [&](U bits, int64_t at, size_t bytes) {
      const U rounded = Round(bits) & 0xFFFF0000u;
      std::memcpy(out + at, &rounded, bytes);
    });
  }

  static void Narrow(const float* x, int64_t count, uint16_t* out) {
    ForEachVector(x, count, [&](U bits, int64_t at, size_t bytes) {
      const Half half = __builtin_convertvector(Round(bits) >> 16, Half);
      std::memcpy(out + at, &half, bytes / 2);
    });
  }

  static void Widen(const uint16_t* x, int64_t count, float* out) {
    int64_t i = 0;
    for (; i + W <= count; i += W) {
      Half half;
      std::memcpy(&half, x + i, sizeof(half));
      const U bits = __builtin_convertvector(half, U) << 16;
      std::memcpy(out + i, &bits, sizeof(bits));
    }
    for (; i < count; ++i) {
      const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
      std::memcpy(out + i, &bits, sizeof(bits));
    }
  }

 private:
  // body(words, index of the first, bytes of them that exist); the last call may hold fewer than W
  // words.
  template <class Body>
  static inline __attribute__((always_inline)) void ForEachVector(const float* x, int64_t count,
                                                                  Body body) {
    int64_t i = 0;
    for (; i + W <= count; i += W) body(LoadBits(x + i), i, sizeof(U));
    if (i < count) {
      U bits = {};
      const size_t bytes = static_cast<size_t>(count - i) * 4;
      std::memcpy(&bits, x + i, bytes);
      body(bits, i, bytes);
    }
  }
};

}  // namespace tern::kernels
