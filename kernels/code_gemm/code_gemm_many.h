// CodeGemm for many tokens (a prompt, an evaluation), for code_gemm_avx512.cc: four rows are taken
// apart once into a panel that stays in the cache, and meet all tokens in tiles of 4 x kTokens.
//   Codes stay bytes; of 64, those at 4 l and 4 l + 2 are one half of lane l as 16-bit numbers and
//   those at 4 l + 1 and 4 l + 3 the other, which meet the token's `words` in the same order: two
//   multiplications instead of two and a shift, and the exact sums of code_gemm.h.
// The same numbers in the same order as CodeGemmVec, so the same bits.
#pragma once

#include "kernels/code_gemm/code_gemm_impl.h"
#include "kernels/code_gemm/codes_vec.h"
#include "kernels/common/columns.h"
#include "kernels/common/join_four.h"

namespace tern::kernels {

inline constexpr int64_t kCodePanelRows = 4;

// 256 weights of one row. s' = (factor x) scales and t' = ((shift_factors x) shifts) zero, x the
// token's scale: CodeParts of codes_vec.h.
struct alignas(64) CodePanelBlock {
  uint8_t codes[kTokenBlock];
  float scales[16], shifts[16], shift_factors[16];
  float factor;
};

template <class V, int kTokens>
struct CodeGemmMany {
  using F = typename V::F;

  template <class C, int c>
  static TERN_INLINE void StoreCodes(const C& row, CodePanelBlock* out) {
    V::StoreCodes(out->codes + 64 * c, row.template Codes<c>());
    if constexpr (c < 3) StoreCodes<C, c + 1>(row, out);
  }

  template <class C>
  static TERN_INLINE void DecodeBlock(const uint8_t* w, CodePanelBlock* out) {
    C row;
    row.Load(w);
    StoreCodes<C, 0>(row, out);
    const CodeFactors<V> factors = row.Factors();
    V::Store(out->scales, factors.scales);
    V::Store(out->shifts, factors.shifts);
    V::Store(out->shift_factors, factors.shift_factors);
    out->factor = factors.factor;
  }

  template <class C>
  static void DecodeRow(const CodeGemmArgs& args, int64_t n, CodePanelBlock* out) {
    const int64_t whole = args.k / kTokenBlock;
    const uint8_t* w = args.w + n * args.row_bytes;
    for (int64_t b = 0; b < whole; ++b) DecodeBlock<C>(w + b * C::kBytes, out + b);
    if (whole == Int16Blocks(args.k)) return;
    uint8_t last[C::kBytes] = {};
    std::memcpy(last, w + whole * C::kBytes,
                static_cast<size_t>(args.row_bytes - whole * C::kBytes));
    DecodeBlock<C>(last, out + whole);
  }

  // factors[r][m]: what the scales of row r meet for token m.
  template <class C, int M, int c>
  static TERN_INLINE void AddChunk(const CodePanelBlock* const (&rows)[kCodePanelRows],
                                   const Int16Block* const (&x)[M],
                                   const float (&factors)[kCodePanelRows][M],
                                   F (&acc)[kCodePanelRows][M]) {
#pragma GCC unroll 4
    for (int r = 0; r < kCodePanelRows; ++r) {
      const auto even = V::EvenCodes(rows[r]->codes + 64 * c),
                 odd = V::OddCodes(rows[r]->codes + 64 * c);
      const F scales = C::template SpreadOf<c>(V::Load(rows[r]->scales));
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const F dot = V::ToFloat(V::DotWords(even, odd, x[m]->words + 64 * c));
        acc[r][m] = V::Fma(dot, V::Mul(V::Broadcast(factors[r][m]), scales), acc[r][m]);
      }
    }
  }

  template <class C, int M>
  static TERN_INLINE void AddBlock(const CodePanelBlock* const (&rows)[kCodePanelRows],
                                   const Int16Block* const (&x)[M], int64_t chunks,
                                   F (&acc)[kCodePanelRows][M]) {
    float factors[kCodePanelRows][M];
#pragma GCC unroll 4
    for (int r = 0; r < kCodePanelRows; ++r) {
      const F shift_factors = V::Load(rows[r]->shift_factors), shifts = V::Load(rows[r]->shifts);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        factors[r][m] = rows[r]->factor * x[m]->scale;
        F shift = V::Mul(V::Mul(shift_factors, V::Broadcast(x[m]->scale)), shifts);
        if constexpr (C::kZero != 1) shift = V::Mul(shift, V::Broadcast(C::kZero));
        acc[r][m] = V::Fma(shift, V::Load(C::SumsOf(*x[m])), acc[r][m]);
      }
    }
    AddChunk<C, M, 0>(rows, x, factors, acc);
    if (chunks > 1) AddChunk<C, M, 1>(rows, x, factors, acc);
    if (chunks > 2) AddChunk<C, M, 2>(rows, x, factors, acc);
    if (chunks > 3) AddChunk<C, M, 3>(rows, x, factors, acc);
  }

  template <class C, int M>
  static void Tile(const CodeGemmArgs& args, const CodePanelBlock* panel, int64_t n,
                   int64_t m_begin) {
    const int64_t blocks = Int16Blocks(args.k), whole = args.k / kTokenBlock;
    const CodePanelBlock* rows[kCodePanelRows];
    const Int16Block* x[M];
    F acc[kCodePanelRows][M];
#pragma GCC unroll 4
    for (int r = 0; r < kCodePanelRows; ++r) {
      rows[r] = panel + r * blocks;
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) acc[r][m] = V::Zero();
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) x[m] = args.x + (m_begin + m) * blocks;
    for (int64_t b = 0; b < whole; ++b) {
      AddBlock<C, M>(rows, x, kTokenBlock / 64, acc);
#pragma GCC unroll 4
      for (int r = 0; r < kCodePanelRows; ++r) ++rows[r];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) ++x[m];
    }
    if (whole < blocks) AddBlock<C, M>(rows, x, (args.k % kTokenBlock + 63) / 64, acc);
    float sums[kCodePanelRows][M];
    JoinTile<V>(acc, sums);
    for (int r = 0; r < kCodePanelRows; ++r) {
      float* y = args.y + m_begin * args.ldy + ColumnOf(n + r, args.paired_head_dim);
      for (int m = 0; m < M; ++m) y[m * args.ldy] = sums[r][m];
    }
  }

  // Four rows from n on with all tokens. panel: kCodePanelRows * Int16Blocks(k).
  template <class C>
  static void Rows(const CodeGemmArgs& args, int64_t n, CodePanelBlock* panel) {
    const int64_t blocks = Int16Blocks(args.k);
    for (int64_t r = 0; r < kCodePanelRows; ++r) DecodeRow<C>(args, n + r, panel + r * blocks);
    int64_t m = 0;
    for (; m + kTokens <= args.m; m += kTokens) Tile<C, kTokens>(args, panel, n, m);
    for (; m < args.m; ++m) Tile<C, 1>(args, panel, n, m);
  }
};

}  // namespace tern::kernels
