// The implementations behind w4a16.h, for the dispatcher and the tests only.
#pragma once

#include <cstdint>

#include "kernels/w4a16/w4a16.h"

namespace tern::kernels {

inline constexpr int64_t kW4Lanes = 16, kW4Steps = 8;  // A group: steps e of 16 lanes.

// The place of lane `lane` = 4 t + r and step e in a group.
constexpr int64_t W4Place(int64_t lane, int64_t e) { return 32 * (lane % 4) + 8 * (lane / 4) + e; }
// The bits of step e in a word start here.
constexpr int W4Shift(int e) { return 4 * (e / 2 + 4 * (e % 2)); }

// Rows [n_begin, n_end) times `tokens` tokens (1, 2, 4 or, AVX-512 only, 8) from m_begin on.
// `reordered`: [tokens][groups][kW4Steps][kW4Lanes], 64-byte aligned, zero beyond k.
using W4A16Rows = void(const W4A16Args& args, int64_t m_begin, int tokens, const float* reordered,
                       int64_t n_begin, int64_t n_end);
W4A16Rows W4A16RowsNeon, W4A16RowsAvx2, W4A16RowsAvx512;

}  // namespace tern::kernels
