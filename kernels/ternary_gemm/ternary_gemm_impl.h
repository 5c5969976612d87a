// The implementations behind ternary_gemm.h, one an instruction set. For the dispatcher and the
// tests only. Two ways:
//   few tokens:  stream the packed weights once, k along the lanes, one sum a lane group (bound by
//   memory); many tokens: unpack a panel of rows to bytes, [k/4][panel rows][4], and multiply tiles
//   of panel rows x tokens with
//                rows along the lanes, so that no sum ever crosses a lane (bound by the
//                multiplier).
#pragma once

#include <cstdint>

#include "kernels/ternary_gemm/ternary_gemm.h"

namespace tern::kernels {

// A rectangle of the result.
struct GemmRange {
  int64_t m_begin = 0, m_end = 0, n_begin = 0, n_end = 0;
};

inline constexpr int64_t kFewTokens = 4;  // Largest number of tokens of the streaming way.

// Panel rows: two registers of int32 sums.
inline constexpr int64_t kPanelRowsNeon = 8;
inline constexpr int64_t kPanelRows256 = 16;  // AVX2 and AVX-VNNI
inline constexpr int64_t kPanelRowsAvx512 = 32;

// Many tokens. buffer: 64-byte aligned, `panels` * panel rows * T2PaddedK(k) bytes with panels
// >= 1.
using TernaryGemmMany = void(const TernaryGemmArgs& args, const GemmRange& range, uint8_t* buffer,
                             int64_t panels);
TernaryGemmMany TernaryGemmManyNeon, TernaryGemmManyAvx2, TernaryGemmManyAvxVnni,
    TernaryGemmManyAvx512;

// Few tokens: m_end - m_begin <= kFewTokens. The AVX-512 version reads activations that
// ReorderTokensAvx512 has laid out
// ([tokens][ReorderedK(k)], 64-byte aligned), in the order in which two T2 blocks fill one
// register.
using TernaryGemmFew = void(const TernaryGemmArgs& args, const GemmRange& range);
TernaryGemmFew TernaryGemmFewNeon, TernaryGemmFewAvx2, TernaryGemmFewAvxVnni;
void TernaryGemmFewAvx512(const TernaryGemmArgs& args, const GemmRange& range,
                          const int8_t* reordered);
constexpr int64_t ReorderedK(int64_t k) { return (k + 255) / 256 * 256; }
void ReorderTokensAvx512(const TernaryGemmArgs& args, int64_t m_begin, int64_t m_end,
                         int8_t* reordered);

}  // namespace tern::kernels
