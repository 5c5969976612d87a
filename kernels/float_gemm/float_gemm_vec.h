// FloatGemm on 16 lanes, for float_gemm_avx2.cc and float_gemm_avx512.cc. Few tokens: R rows at a
// time are decoded in registers and multiplied with every token there. Many tokens: four rows are
// decoded into a buffer that stays in the cache, and multiplied in tiles of R rows x M tokens.
#pragma once

#include <cstring>

#include "kernels/common/columns.h"
#include "kernels/common/join_four.h"
#include "kernels/float_gemm/float_codes.h"
#include "kernels/float_gemm/float_gemm_impl.h"

namespace tern::kernels {

// V: operations; kFewTokens: tokens up to which rows are decoded in registers; kTileRows x
// kTileTokens: the tile of many tokens, both chosen so that all sums stay in registers.
template <class V, int kFewTokens, int kTileRows, int kTileTokens>
struct FloatGemmVec {
  using F = typename V::F;
  // To the L2 and whole groups of rows ahead: see ternary_gemm_few_avx512.cc.
  static constexpr int64_t kPrefetchBytes = 8192;

  // Each line once: blocks are shorter and longer than lines.
  template <int kBytes>
  static TERN_INLINE void PrefetchBlock(const uint8_t* p) {
    for (int at = 0; at < kBytes; at += 64) __builtin_prefetch(p + at, 0, 2);
  }

  template <template <class> class Code, int R, int M, int u>
  static TERN_INLINE void AddUnits(const Code<V> (&rows)[R], const float* x, int64_t ldx,
                                   F (&acc)[R][M]) {
    if constexpr (u < Code<V>::kUnits) {
      F a[M];
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) a[m] = V::Load(x + m * ldx + 16 * u);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const F w = rows[r].template Weights<u>();
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) acc[r][m] = V::Fma(w, a[m], acc[r][m]);
      }
      AddUnits<Code, R, M, u + 1>(rows, x, ldx, acc);
    }
  }

  // Where the scales of a group of rows are; those of other codes are nowhere.
  struct RowScales {
    const float* scales = nullptr;  // Row r's at r * stride, its zeros half a stride on
    int64_t stride = 0, block_k = 1;
    BlockScale At(int64_t r, int64_t i) const {
      const float* row = scales + r * stride;
      return {row[i / block_k], row[stride / 2 + i / block_k]};
    }
  };
  template <template <class> class Code>
  static TERN_INLINE BlockScale ScaleOf(const RowScales& scales, int64_t r, int64_t i) {
    if constexpr (Code<V>::kScaled) return scales.At(r, i);
    return {};
  }

  // acc += R rows times M tokens over whole blocks; returns the elements done.
  template <template <class> class Code, int R, int M>
  static TERN_INLINE int64_t AddBlocks(const uint8_t* w, int64_t row_bytes, const RowScales& scales,
                                       const float* x, int64_t ldx, int64_t k, F (&acc)[R][M]) {
    using C = Code<V>;
    const int64_t group = row_bytes > 0 ? R * row_bytes : 1,
                  ahead = (kPrefetchBytes + group - 1) / group * group;
    int64_t i = 0;
    for (; i + C::kWeights <= k; i += C::kWeights, w += C::kBytes) {
      C rows[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        rows[r].Load(w + r * row_bytes, ScaleOf<Code>(scales, r, i));
        PrefetchBlock<C::kBytes>(w + r * row_bytes + ahead);
      }
      AddUnits<Code, R, M, 0>(rows, x + i, ldx, acc);
    }
    return i;
  }

  // Blocks without scales in them: a row may end within one.
  template <template <class> class Code>
  static constexpr bool kAnyLength = Code<V>::kBytes == 64 || Code<V>::kScaled;
  // Of `count` elements.
  template <template <class> class Code>
  static constexpr int64_t Bytes(int64_t count) {
    return (count * Code<V>::kBytes + Code<V>::kWeights - 1) / Code<V>::kWeights;
  }

  // The last `left` elements, as a block padded with zeros.
  template <template <class> class Code, int R, int M>
  static TERN_INLINE void AddTail(const uint8_t* w, int64_t row_bytes, const RowScales& scales,
                                  const float* x, int64_t ldx, int64_t done, int64_t left,
                                  F (&acc)[R][M]) {
    using C = Code<V>;
    float a[M][C::kWeights] = {};
    for (int m = 0; m < M; ++m)
      std::memcpy(a[m], x + m * ldx, static_cast<size_t>(left) * sizeof(float));
    uint8_t blocks[R][C::kBytes] = {};
    C rows[R];
    for (int r = 0; r < R; ++r) {
      std::memcpy(blocks[r], w + r * row_bytes, static_cast<size_t>(Bytes<Code>(left)));
      rows[r].Load(blocks[r], ScaleOf<Code>(scales, r, done));
    }
    AddUnits<Code, R, M, 0>(rows, a[0], C::kWeights, acc);
  }

  template <template <class> class Code, int R, int M>
  static void Tile(const FloatGemmArgs& args, const uint8_t* w, int64_t row_bytes,
                   const RowScales& scales, int64_t n, int64_t m_begin) {
    F acc[R][M];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) acc[r][m] = V::Zero();
    }
    const float* x = args.x + m_begin * args.ldx;
    const int64_t done = AddBlocks<Code, R, M>(w, row_bytes, scales, x, args.ldx, args.k, acc);
    if constexpr (kAnyLength<Code>) {
      if (done < args.k) {
        AddTail<Code, R, M>(w + Bytes<Code>(done), row_bytes, scales, x + done, args.ldx, done,
                            args.k - done, acc);
      }
    }
    float sums[R][M];
    JoinTile<V>(acc, sums);
    for (int r = 0; r < R; ++r) {
      const int64_t column = ColumnOf(n + r, args.paired_head_dim);
      for (int m = 0; m < M; ++m) args.y[(m_begin + m) * args.ldy + column] = sums[r][m];
    }
  }

  // All tokens of R rows, M at a time.
  template <template <class> class Code, int R, int M>
  static TERN_INLINE void Tokens(const FloatGemmArgs& args, const uint8_t* w, int64_t row_bytes,
                                 const RowScales& scales, int64_t n, int64_t m_begin) {
    int64_t m = m_begin;
    for (; m + M <= args.m; m += M) Tile<Code, R, M>(args, w, row_bytes, scales, n, m);
    if constexpr (M > 1) {
      if (m < args.m) Tokens<Code, R, M - 1>(args, w, row_bytes, scales, n, m);
    }
  }

  // The scales of `count` rows, in the buffer that would hold the rows.
  template <template <class> class Code>
  static RowScales ReadScales(const FloatGemmArgs& args, int64_t n, int64_t count, float* buffer) {
    if constexpr (!Code<V>::kScaled) return {};
    const int64_t stride = PanelStride(args.k);
    for (int64_t r = 0; r < count; ++r)
      args.block_scales(n + r, buffer + r * stride, buffer + r * stride + stride / 2);
    return {buffer, stride, args.block_k};
  }

  template <template <class> class Code>
  static void Few(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer) {
    int64_t n = n_begin;
    for (; n + 4 <= n_end; n += 4)
      Tokens<Code, 4, kFewTokens>(args, args.w + n * args.row_bytes, args.row_bytes,
                                  ReadScales<Code>(args, n, 4, buffer), n, 0);
    for (; n < n_end; ++n)
      Tokens<Code, 1, kFewTokens>(args, args.w + n * args.row_bytes, args.row_bytes,
                                  ReadScales<Code>(args, n, 1, buffer), n, 0);
  }

  template <template <class> class Code, int u>
  static TERN_INLINE void DecodeUnits(const Code<V>& row, float* out) {
    if constexpr (u < Code<V>::kUnits) {
      V::Store(out + 16 * u, row.template Weights<u>());
      DecodeUnits<Code, u + 1>(row, out);
    }
  }

  template <template <class> class Code>
  static void DecodeRow(const uint8_t* w, const RowScales& scales, int64_t k, float* out) {
    using C = Code<V>;
    int64_t i = 0;
    for (; i + C::kWeights <= k; i += C::kWeights, w += C::kBytes) {
      C row;
      row.Load(w, ScaleOf<Code>(scales, 0, i));
      DecodeUnits<Code, 0>(row, out + i);
    }
    if constexpr (kAnyLength<Code>) {
      if (i == k) return;
      uint8_t block[C::kBytes] = {};
      std::memcpy(block, w, static_cast<size_t>(Bytes<Code>(k - i)));
      C row;
      row.Load(block, ScaleOf<Code>(scales, 0, i));
      float values[C::kWeights];
      DecodeUnits<Code, 0>(row, values);
      std::memcpy(out + i, values, static_cast<size_t>(k - i) * sizeof(float));
    }
  }

  // Rows of fp32 at `rows` times all tokens.
  static void MultiplyRows(const FloatGemmArgs& args, const float* rows, int64_t stride, int64_t n,
                           int64_t count) {
    const auto* w = reinterpret_cast<const uint8_t*>(rows);
    const int64_t row_bytes = stride * static_cast<int64_t>(sizeof(float));
    int64_t r = 0;
    for (; r + kTileRows <= count; r += kTileRows)
      Tokens<CodeF32, kTileRows, kTileTokens>(args, w + r * row_bytes, row_bytes, {}, n + r, 0);
    for (; r < count; ++r)
      Tokens<CodeF32, 1, kTileTokens>(args, w + r * row_bytes, row_bytes, {}, n + r, 0);
  }

  // decode(n, out) decodes row n.
  template <class Decode>
  static TERN_INLINE void Many(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end,
                               float* buffer, Decode decode) {
    const int64_t stride = PanelStride(args.k);
    for (int64_t n = n_begin; n < n_end; n += kPanelRows) {
      const int64_t count = n_end - n < kPanelRows ? n_end - n : kPanelRows;
      for (int64_t r = 0; r < count; ++r) decode(n + r, buffer + r * stride);
      MultiplyRows(args, buffer, stride, n, count);
    }
  }

  template <template <class> class Code>
  static void Rows(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer) {
    if (args.m <= kFewTokens) return Few<Code>(args, n_begin, n_end, buffer);
    Many(args, n_begin, n_end, buffer, [&](int64_t n, float* out) {
      float* own = buffer + kPanelRows * PanelStride(args.k);  // Behind the panel
      DecodeRow<Code>(args.w + n * args.row_bytes, ReadScales<Code>(args, n, 1, own), args.k, out);
    });
  }

  static void Run(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer) {
    switch (args.code) {
      case FloatCode::kF32:
        return MultiplyRows(args,
                            reinterpret_cast<const float*>(args.w) + n_begin * args.row_bytes / 4,
                            args.row_bytes / 4, n_begin, n_end - n_begin);
      case FloatCode::kF16:
        return Rows<CodeF16>(args, n_begin, n_end, buffer);
      case FloatCode::kBf16:
        return Rows<CodeBf16>(args, n_begin, n_end, buffer);
      case FloatCode::kQ8_0:
        return Rows<CodeQ8_0>(args, n_begin, n_end, buffer);
      case FloatCode::kInt8:
        return Rows<CodeInt8>(args, n_begin, n_end, buffer);
      case FloatCode::kE4m3:
        return Rows<CodeE4m3>(args, n_begin, n_end, buffer);
      case FloatCode::kInt4:
        return Rows<CodeInt4>(args, n_begin, n_end, buffer);
      case FloatCode::kRows:
        return Many(args, n_begin, n_end, buffer,
                    [&](int64_t n, float* out) { args.decode_row(n, out); });
    }
  }
};

}  // namespace tern::kernels
