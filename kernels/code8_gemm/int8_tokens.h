// Activations as 8-bit integers for products with codes (code8_gemm.h): an fp32 scale for each 32
// of them, in blocks of 256, which is what GGUF's largest blocks of weights are.
//   scale = amax / 127; q = rint(x * (127 / amax)), half to even; all zero when amax is below 1e-30
// The rounding is 2^-8 of the largest of 32 activations, where int16_tokens.h has 2^-16 of the
// largest of 256.
// The bytes are there in two orders, for the two ways in which types lie in memory: `natural`, and
// `paired`, where the 32 i and 32 (i + 4) share a row, half by half, so that a register of two
// halves sums up both at once.
#pragma once

#include <cstdint>

#include "kernels/code_gemm/int16_tokens.h"

namespace tern::kernels {

inline constexpr float kInt8Limit = 127.0f;

// The lane of a group of 16 activations: of each eight, 0, 2, 4, 6, 1, 3, 5, 7 follow each other,
// as they come out of natural rows.
constexpr int64_t LaneOf16(int64_t group) { return (group & 8) + group % 2 * 4 + group % 8 / 2; }

// The place of element p of half h (0, 1) of the 32 j (0 .. 7) in `paired`.
constexpr int64_t PairedPlace(int64_t j, int64_t h, int64_t p) {
  return 64 * (j % 4) + 32 * h + 16 * (j / 4) + p;
}

struct alignas(64) Int8Block {
  int8_t paired[kTokenBlock], natural[kTokenBlock];
  // Of 32 activations each: the scale, the sum of q (an integer), and their product.
  float scale[8], sum[8], scaled_sum[8];
  // Of 16, at LaneOf16.
  float scale16[16], sum16[16], scaled_sum16[16];
};

inline int64_t Int8Blocks(int64_t k) { return Int16Blocks(k); }

// x: [m, k] fp32, row stride ldx, finite. out: [m, Int8Blocks(k)]; elements beyond k are 0. The
// same bits on every instruction set.
void QuantizeInt8(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out);

}  // namespace tern::kernels
