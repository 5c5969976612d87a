// What both CUDA kernels of the 4-bit product share: arguments, and words of weights to fragments.
// A word holds two neighbours along k at bits 4 p and 4 p + 16 (w4a16.h). Or-ed into the bits of
// 1024 (fp16, whose units are then 1) or 128 (bf16), four bits are that number plus the code; one
// operation takes off the number and the zero point: code - zero, exactly, two at a time.
#pragma once

#include <cstdint>

#include "kernels/simt/intrin_half.h"
#include "kernels/simt/intrin_tensor.h"

namespace tern::kernels {

// Device pointers; w and x aligned to 16 bytes, ldx a multiple of 8.
struct W4A16DeviceArgs {
  const uint8_t* w;           // [n, 64 groups]
  const uint16_t* scales_GN;  // [groups, n], of the type of x
  const uint8_t* zeros_GN;    // [groups, n] or null
  const uint16_t* x;          // [m, ldx] bits of fp16 or bf16, zero beyond k
  const float* x_scale;       // [m] or null
  float* y;                   // [m, ldy]
  int m, n, groups;
  int64_t ldx, ldy;
};

// A finished sum of a token.
TERN_DEVICE float W4Scaled(const W4A16DeviceArgs& args, float sum, int token) {
  return args.x_scale == nullptr ? sum : sum * args.x_scale[token];
}

// What a row's zero point becomes: the second operand of the operations below, in both halves.
template <bool kBf16>
TERN_DEVICE uint32_t W4ZeroPair(uint32_t zero) {
  // -(128 + zero) in bf16, 1024 + zero in fp16.
  return (zero | (kBf16 ? 0xC300u : 0x6400u)) * 0x00010001u;
}

// pair[i] = (code - zero) of k + 2 i (lower half) and k + 2 i + 1, for the word that starts at k.
template <bool kBf16>
TERN_DEVICE void W4Pairs(uint32_t word, uint32_t zero_pair, uint32_t (&pair)[4]) {
  constexpr uint32_t kLow = 0x000F000Fu, kHigh = 0x00F000F0u;
  if constexpr (kBf16) {
    constexpr uint32_t k128 = 0x43004300u, kOne = 0x3F803F80u;
    TERN_UNROLL
    for (int i = 0; i < 4; ++i) {
      pair[i] = simt::MultiplyAddBf16x2(simt::AndOr(word >> (4 * i), kLow, k128), kOne, zero_pair);
    }
  } else {
    constexpr uint32_t k1024 = 0x64006400u, kSixteenth = 0x2C002C00u;
    // -(64 + zero): the zero point's bits move to where a unit of 64 is 1 / 16.
    const uint32_t minus_64_zero = (zero_pair & kLow) << 4 | 0xD400D400u;
    TERN_UNROLL
    for (int i = 0; i < 4; i += 2) {
      const uint32_t bits = word >> (4 * i);
      pair[i] = simt::SubtractF16x2(simt::AndOr(bits, kLow, k1024), zero_pair);
      // The upper four bits of a byte count 16: (1024 + 16 code) / 16 - (64 + zero).
      pair[i + 1] =
          simt::MultiplyAddF16x2(simt::AndOr(bits, kHigh, k1024), kSixteenth, minus_64_zero);
    }
  }
}

template <bool kBf16>
TERN_DEVICE float W4Scale(uint16_t bits) {
  return kBf16 ? simt::FloatFromBf16(bits) : simt::FloatFromF16(bits);
}

template <bool kBf16>
TERN_DEVICE void W4Multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kBf16) {
    simt::MultiplyBf16(c, a, b);
  } else {
    simt::MultiplyF16(c, a, b);
  }
}

// Scale and zero point of a row in a group.
struct W4RowGroup {
  float scale;
  uint32_t zero_pair;
};

// Rows beyond the matrix read the last row's: their results are not written.
template <bool kBf16>
TERN_DEVICE W4RowGroup W4LoadRowGroup(const W4A16DeviceArgs& args, int row, int group) {
  const int64_t at = static_cast<int64_t>(group) * args.n + (row < args.n ? row : args.n - 1);
  const uint32_t zero = args.zeros_GN != nullptr ? args.zeros_GN[at] : 8u;
  return {W4Scale<kBf16>(args.scales_GN[at]), W4ZeroPair<kBf16>(zero)};
}

}  // namespace tern::kernels
