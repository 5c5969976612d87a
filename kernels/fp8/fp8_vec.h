// The E4M3 casts on vectors of W words: the steps of fp8_ref.cc without branches, for fp8_avx2.cc,
// fp8_avx512.cc and fp8_neon.cc.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/vec.h"

namespace tern::kernels {

template <int W>
struct Fp8Vec {
  using U = typename Vec<W>::U;
  using F = typename Vec<W>::F;
  typedef uint8_t Codes __attribute__((vector_size(W)));

  static inline __attribute__((always_inline)) U Encode(U bits) {
    constexpr uint32_t kRounder = 0x46800000;  // 2^14, where the unit of fp32 is 2^-9
    const U size = bits & 0x7FFFFFFFu;
    const U small = (U)((F)size + (F)(U{} + kRounder)) - kRounder;
    const U rounded = size + 0x7FFFFu + (size >> 20 & 1u);
    const U code = size < 0x3C800000u ? small : (rounded >> 20) - (120u << 3);  // Below 2^-6
    const U saturated = size > 0x43E00000u ? U{} + 0x7Eu : code;                // Above 448
    return size > 0x7F800000u ? U{} + 0x7Fu : saturated | (bits >> 24 & 0x80u);
  }

  static inline __attribute__((always_inline)) U Decode(U code) {
    const U size = code & 0x7Fu;
    const U normal = (size << 20) + (120u << 23);
    // 2^-6 (1 + f / 8) - 2^-6: a subnormal's value without a subnormal of fp32.
    const U subnormal = (U)((F)((size << 20) + (121u << 23)) - (F)(U{} + (121u << 23)));
    const U value = (size < 8u ? subnormal : normal) | (code & 0x80u) << 24;
    return size == 0x7Fu ? U{} + 0x7FC00000u : value;
  }

  static void EncodeAll(const float* x, int64_t count, uint8_t* out) {
    int64_t i = 0;
    for (; i + W <= count; i += W) EncodeSome(x + i, W, out + i);
    if (i < count) EncodeSome(x + i, static_cast<size_t>(count - i), out + i);
  }

  static void DecodeAll(const uint8_t* x, int64_t count, float* out) {
    int64_t i = 0;
    for (; i + W <= count; i += W) DecodeSome(x + i, W, out + i);
    if (i < count) DecodeSome(x + i, static_cast<size_t>(count - i), out + i);
  }

 private:
  static inline __attribute__((always_inline)) void EncodeSome(const float* x, size_t count,
                                                               uint8_t* out) {
    U bits = {};
    std::memcpy(&bits, x, count * sizeof(float));
    const Codes codes = __builtin_convertvector(Encode(bits), Codes);
    std::memcpy(out, &codes, count);
  }

  static inline __attribute__((always_inline)) void DecodeSome(const uint8_t* x, size_t count,
                                                               float* out) {
    Codes codes = {};
    std::memcpy(&codes, x, count);
    const U bits = Decode(__builtin_convertvector(codes, U));
    std::memcpy(out, &bits, count * sizeof(float));
  }
};

}  // namespace tern::kernels
