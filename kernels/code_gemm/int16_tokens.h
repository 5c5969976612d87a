// Activations as 16-bit integers for products with small codes (code_gemm.h): blocks of 256 with
// one fp32 scale, so that a product with codes is exact integer arithmetic and the rounding is
// 2^-16 of a block's largest activation. Each integer is kept as two bytes, q = 256 high + low,
// because the multipliers of processors take bytes.
//   scale = amax / 32639; q = rint(x * (32639 / amax)), half to even; all zero when amax is below
//   1e-30
// 32639 = 127 * 256 + 127 is the largest number whose bytes both fit (-128 .. 127).
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/inline.h"

namespace tern::kernels {

inline constexpr int64_t kTokenBlock = 256;
inline constexpr float kInt16Limit = 32639.0f;
inline constexpr float kSmallestAmax = 1e-30f;  // Its inverse times the limit is a number of fp32

struct alignas(64) Int16Block {
  int8_t high[kTokenBlock], low[kTokenBlock];
  // q again, for the multipliers of 16 bits (code_gemm_many.h): of each 64 those at even places,
  // then those at odd ones.
  int16_t words[kTokenBlock];
  // high and low again with the second and the third 16 of each 64 exchanged: what a register of
  // two blocks' low halves and one of their high halves meet (bytes64_avx2.h).
  int8_t paired_high[kTokenBlock], paired_low[kTokenBlock];
  float sums[16];         // Of q over each 16 elements: integers below 2^20, exact
  float paired_sums[16];  // The same, 4 to 7 and 8 to 11 exchanged
  float pair_sums[16];    // 0 eight times, then of q over each 32 elements
  float scale;
};

// What versions of QuantizeInt16 derive from a block's bytes and sums: words and paired members.
static inline void DeriveMembers(Int16Block* block) {
  for (int64_t g = 0; g < 16; ++g) {
    const int64_t place = g % 4 == 1 ? g + 1 : g % 4 == 2 ? g - 1 : g;
    std::memcpy(block->paired_high + 16 * place, block->high + 16 * g, 16);
    std::memcpy(block->paired_low + 16 * place, block->low + 16 * g, 16);
    block->paired_sums[g / 4 == 1 ? g + 4 : g / 4 == 2 ? g - 4 : g] = block->sums[g];
  }
  for (int64_t i = 0; i < kTokenBlock; i += 64) {
    int16_t* words = block->words + i;
    for (int64_t j = 0; j < 32; ++j) {
      const int64_t even = i + 2 * j;
      words[j] = static_cast<int16_t>(256 * block->high[even] + block->low[even]);
      words[32 + j] = static_cast<int16_t>(256 * block->high[even + 1] + block->low[even + 1]);
    }
  }
}

// block(p, out) for each 256 activations of m rows, the last ones of a row padded with zeros.
template <class Block, class Body>
static TERN_INLINE void ForEachBlock(const float* x, int64_t m, int64_t k, int64_t ldx, Block* out,
                                     const Body& block) {
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t begin = 0; begin < k; begin += kTokenBlock, ++out) {
      const float* p = x + row * ldx + begin;
      float padded[kTokenBlock];
      if (k - begin < kTokenBlock) {
        const int64_t count = k - begin;
        for (int64_t i = 0; i < kTokenBlock; ++i) padded[i] = i < count ? p[i] : 0.0f;
        p = padded;
      }
      block(p, out);
    }
  }
}

inline int64_t Int16Blocks(int64_t k) { return (k + kTokenBlock - 1) / kTokenBlock; }

// x: [m, k] fp32, row stride ldx, finite. out: [m, Int16Blocks(k)]; elements beyond k are 0. The
// same bits on every instruction set.
void QuantizeInt16(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out);

}  // namespace tern::kernels
