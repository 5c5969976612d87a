// CodeGemm and QuantizeInt16 on 64 codes at a time, for the vector versions.
#pragma once

#include "kernels/code_gemm/code_gemm_impl.h"
#include "kernels/code_gemm/codes_vec.h"
#include "kernels/common/columns.h"
#include "kernels/common/join_four.h"

namespace tern::kernels {

// V: operations. Tiles: kOneRows rows for one token, kRows rows x kTokens tokens for more; all sums
// stay in registers.
template <class V, int kOneRows, int kRows, int kTokens>
struct CodeGemmVec {
  using F = typename V::F;
  static constexpr int64_t kPrefetchBytes = 8192;  // To the L2: see ternary_gemm_few_avx512.cc

  template <class C, int R, int M, int c>
  static TERN_INLINE void AddChunk(const C (&rows)[R], const F (&scales)[R][M],
                                   const Int16Block* const (&x)[M], F (&acc)[R][M]) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const auto codes = rows[r].template Codes<c>();
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        const auto dot =
            V::ToFloat(V::Dot(codes, C::HighOf(*x[m]) + 64 * c, C::LowOf(*x[m]) + 64 * c));
        acc[r][m] = V::Fma(dot, C::template SpreadOf<c>(scales[r][m]), acc[r][m]);
      }
    }
  }

  // acc += the first `chunks` times 64 of 256 weights of R rows, at w, w + row_bytes, ..., times M
  // tokens.
  template <class C, int R, int M>
  static TERN_INLINE void AddBlock(const uint8_t* w, int64_t row_bytes,
                                   const Int16Block* const (&x)[M], int64_t chunks,
                                   F (&acc)[R][M]) {
    C rows[R];
    F scales[R][M];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      rows[r].Load(w + r * row_bytes);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        scales[r][m] = rows[r].Scales(x[m]->scale);
        acc[r][m] =
            V::Fma(rows[r].Shifts(x[m]->scale, scales[r][m]), V::Load(C::SumsOf(*x[m])), acc[r][m]);
      }
    }
    AddChunk<C, R, M, 0>(rows, scales, x, acc);
    if (chunks > 1) AddChunk<C, R, M, 1>(rows, scales, x, acc);
    if (chunks > 2) AddChunk<C, R, M, 2>(rows, scales, x, acc);
    if (chunks > 3) AddChunk<C, R, M, 3>(rows, scales, x, acc);
  }

  template <class C, int R, int M>
  static void Tile(const CodeGemmArgs& args, int64_t n, int64_t m_begin) {
    const int64_t blocks = Int16Blocks(args.k), whole = args.k / kTokenBlock;
    const uint8_t* w = args.w + n * args.row_bytes;
    const int64_t group = R * args.row_bytes > 0 ? R * args.row_bytes : 1;
    const int64_t ahead = (kPrefetchBytes + group - 1) / group * group;
    const Int16Block* x[M];
    F acc[R][M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      x[m] = args.x + (m_begin + m) * blocks;
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r][m] = V::Zero();
    }
    for (int64_t b = 0; b < whole; ++b, w += C::kBytes) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        for (int at = 0; at < C::kBytes; at += 64)
          __builtin_prefetch(w + r * args.row_bytes + ahead + at, 0, 2);
      }
      AddBlock<C, R, M>(w, args.row_bytes, x, kTokenBlock / 64, acc);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) ++x[m];
    }
    if (whole < blocks) {  // Fewer than eight blocks of 32: the others are zeros
      uint8_t last[R][C::kBytes] = {};
      const int64_t bytes = args.row_bytes - whole * C::kBytes;
      for (int r = 0; r < R; ++r)
        std::memcpy(last[r], w + r * args.row_bytes, static_cast<size_t>(bytes));
      AddBlock<C, R, M>(last[0], C::kBytes, x, (args.k % kTokenBlock + 63) / 64, acc);
    }
#pragma GCC unroll 4
    for (int i = 0; i < R * M; ++i) acc[i / M][i % M] = C::InOrder(acc[i / M][i % M]);
    float sums[R][M];
    JoinTile<V>(acc, sums);
    for (int r = 0; r < R; ++r) {
      for (int m = 0; m < M; ++m)
        args.y[(m_begin + m) * args.ldy + ColumnOf(n + r, args.paired_head_dim)] = sums[r][m];
    }
  }

  template <class C, int R, int M>
  static TERN_INLINE void Tokens(const CodeGemmArgs& args, int64_t n, int64_t m) {
    for (; m + M <= args.m; m += M) Tile<C, R, M>(args, n, m);
    if constexpr (M > 1) {
      if (m < args.m) Tokens<C, R, M - 1>(args, n, m);
    }
  }

  template <class C>
  static void Rows(const CodeGemmArgs& args, int64_t n, int64_t n_end) {
    if (args.m == 1) {
      for (; n + kOneRows <= n_end; n += kOneRows) Tile<C, kOneRows, 1>(args, n, 0);
    } else {
      for (; n + kRows <= n_end; n += kRows) Tokens<C, kRows, kTokens>(args, n, 0);
    }
    for (; n < n_end; ++n) Tokens<C, 1, kTokens>(args, n, 0);
  }

  static void Run(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end) {
    WithCodeType<V>(args.type, [&]<class C>() { Rows<C>(args, n_begin, n_end); });
  }

  static void Quantize(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out) {
    ForEachBlock(x, m, k, ldx, out, [](const float* p, Int16Block* to) { QuantizeBlock(p, to); });
  }

  static TERN_INLINE void QuantizeBlock(const float* p, Int16Block* out) {
    F largest = V::Zero();
    for (int64_t i = 0; i < kTokenBlock; i += 16)
      largest = V::Max(largest, V::Abs(V::LoadAny(p + i)));
    const float amax = V::MaxLane(largest);
    const bool small = amax < kSmallestAmax;
    out->scale = small ? 0.0f : amax / kInt16Limit;
    const F factor = V::Broadcast(small ? 0.0f : kInt16Limit / amax);
    for (int64_t i = 0; i < 8; ++i) out->pair_sums[i] = 0.0f;
    for (int64_t i = 0; i < kTokenBlock; i += 16) {
      const F scaled = V::Mul(V::LoadAny(p + i), factor);
      out->sums[i / 16] = V::SplitBytes(scaled, out->high + i, out->low + i);
    }
    for (int64_t i = 0; i < 8; ++i) out->pair_sums[8 + i] = out->sums[2 * i] + out->sums[2 * i + 1];
    DeriveMembers(out);
  }
};

}  // namespace tern::kernels
