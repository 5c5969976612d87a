// Counting on packed codes, for the SIMD weight quantizers: a code is 00, 01 or 10, so its low bit
// says "zero weight".
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/ternary_quantize/ternary_quantize.h"

namespace tern::kernels {

// Adds the zeros and the flips against `previous` (may be null) of one T2 block. Padding counts as
// zero: the caller takes it off. Static: each instruction set compiles its own.
static inline void CountBlock(const uint8_t* block, const uint8_t* previous,
                              TernaryCounts& counts) {
  constexpr uint64_t kLowBits = 0x5555555555555555u;
  for (int i = 0; i < 4; ++i) {
    uint64_t codes, old;
    std::memcpy(&codes, block + 8 * i, 8);
    counts.zeros += __builtin_popcountll(codes & kLowBits);
    if (previous == nullptr) continue;
    std::memcpy(&old, previous + 8 * i, 8);
    const uint64_t changed = codes ^ old;
    counts.flips += __builtin_popcountll((changed | changed >> 1) & kLowBits);
  }
}

}  // namespace tern::kernels
