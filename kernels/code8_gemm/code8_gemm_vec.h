// Code8Gemm and QuantizeInt8 for the vector versions: a block of 256 weights at a time, whose eight
// (sixteen) exact sums come out of one tree of additions and meet their scales as one (two)
// registers.
#pragma once

#include <cstring>

#include "kernels/code8_gemm/code8_gemm_impl.h"
#include "kernels/code8_gemm/codes8_vec.h"
#include "kernels/common/columns.h"
#include "kernels/common/join_four.h"

namespace tern::kernels {

// V: operations. Tiles of one row and up to kTokens tokens, all of which meet codes that were taken
// apart once.
template <class V, int kTokens>
struct Code8GemmVec {
  using F = typename V::F;
  using B = typename V::B;
  static constexpr int64_t kPrefetchBytes = 8192;  // To the L2: see ternary_gemm_few_avx512.cc

  template <class C, int v = 0>
  static TERN_INLINE void TakeCodes(const C& row, B (&codes)[8]) {
    codes[v] = row.template Codes<v>();
    if constexpr (v < 7) TakeCodes<C, v + 1>(row, codes);
  }

  // Integers of the eight lanes 8 r .. as floats.
  template <class C, int r>
  static TERN_INLINE F Sums(const B (&codes)[8], const int8_t* x) {
    typename V::P p[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if constexpr (C::kLanes == 8) {
        p[i] = V::template Dot2<C::kBits>(codes[2 * i], codes[2 * i + 1], x + 64 * i);
      } else {
        p[i] = V::template Dot1<C::kBits>(codes[4 * r + i], x + 32 * (4 * r + i));
      }
    }
    constexpr int kProducts = C::kLanes == 8 ? 4 : 2;
    return V::ToFloat(V::template Join<C::kBits, kProducts>(p[0], p[1], p[2], p[3]));
  }

  template <class C, int r = 0>
  static TERN_INLINE void AddToken(const C& row, const B (&codes)[8], const Int8Block& x,
                                   F (&acc)[C::kLanes / 8]) {
    F sums = Sums<C, r>(codes, C::Order(x));
    if constexpr (C::kZero == 0) {
      const F scaled_sum = V::LoadFloats(C::ScaledSum(x) + 8 * r);
      acc[r] = C::kMinus ? V::MinusFma(row.t[r], scaled_sum, acc[r])
                         : V::Fma(row.t[r], scaled_sum, acc[r]);
    } else if constexpr (C::kBits < 8) {  // Bytes are signed already
      // Integers below 2^20: exact.
      sums = V::MinusFma(V::Everywhere(C::kZero), V::LoadFloats(C::Sum(x) + 8 * r), sums);
    }
    acc[r] = V::Fma(V::Mul(row.s[r], V::LoadFloats(C::Scale(x) + 8 * r)), sums, acc[r]);
    if constexpr (8 * r + 8 < C::kLanes) AddToken<C, r + 1>(row, codes, x, acc);
  }

  template <class C, int M>
  static TERN_INLINE void AddBlock(const uint8_t* w, const Int8Block* const (&x)[M],
                                   F (&acc)[M][C::kLanes / 8]) {
    C row;
    row.Load(w);
    B codes[8];
    TakeCodes(row, codes);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) AddToken(row, codes, *x[m], acc[m]);
  }

  template <class C, int M>
  static void Tile(const Code8GemmArgs& args, int64_t n, int64_t m_begin) {
    const int64_t blocks = Int8Blocks(args.k), whole = args.k / kTokenBlock;
    const uint8_t* w = args.w + n * args.row_bytes;
    const Int8Block* x[M];
    F acc[M][C::kLanes / 8];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      x[m] = args.x + (m_begin + m) * blocks;
      for (F& lanes : acc[m]) lanes = V::Everywhere(0.0f);
    }
    for (int64_t b = 0; b < whole; ++b, w += C::kBytes) {
      for (int at = 0; at < C::kBytes; at += 64) __builtin_prefetch(w + kPrefetchBytes + at, 0, 2);
      AddBlock<C, M>(w, x, acc);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) ++x[m];
    }
    if (whole < blocks) {  // Fewer than eight blocks of 32: the others are zeros
      uint8_t last[C::kBytes] = {};
      std::memcpy(last, w, static_cast<size_t>(args.row_bytes - whole * C::kBytes));
      AddBlock<C, M>(last, x, acc);
    }
    for (int m = 0; m < M; ++m) {
      const Quad sum =
          V::Fold(C::kLanes == 8 ? acc[m][0] : V::Add(acc[m][0], acc[m][C::kLanes / 16]));
      args.y[(m_begin + m) * args.ldy + ColumnOf(n, args.paired_head_dim)] =
          (sum[0] + sum[2]) + (sum[1] + sum[3]);
    }
  }

  template <class C, int M>
  static TERN_INLINE void Tokens(const Code8GemmArgs& args, int64_t n, int64_t m) {
    for (; m + M <= args.m; m += M) Tile<C, M>(args, n, m);
    if constexpr (M > 1) {
      if (m < args.m) Tokens<C, M - 1>(args, n, m);
    }
  }

  static void Run(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end) {
    WithCodes8<V>(args.type, [&]<class C>() {
      for (int64_t n = n_begin; n < n_end; ++n) Tokens<C, kTokens>(args, n, 0);
    });
  }

  static void Quantize(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out) {
    ForEachBlock(x, m, k, ldx, out, [](const float* p, Int8Block* to) {
      for (int64_t j = 0; j < 8; ++j) Quantize32(p + 32 * j, j, to);
    });
  }

  static TERN_INLINE void Quantize32(const float* p, int64_t j, Int8Block* out) {
    const float amax = V::LargestOf32(p);
    const bool small = amax < kSmallestAmax;
    const float scale = small ? 0.0f : amax / kInt8Limit;
    float sums[2];
    int8_t* q = out->natural + 32 * j;
    V::Round32(p, small ? 0.0f : kInt8Limit / amax, q, sums);
    std::memcpy(out->paired + PairedPlace(j, 0, 0), q, 16);
    std::memcpy(out->paired + PairedPlace(j, 1, 0), q + 16, 16);
    out->scale[j] = scale;
    out->sum[j] = sums[0] + sums[1];
    out->scaled_sum[j] = scale * out->sum[j];
    for (int64_t h = 0; h < 2; ++h) {
      const int64_t lane = LaneOf16(2 * j + h);
      out->scale16[lane] = scale;
      out->sum16[lane] = sums[h];
      out->scaled_sum16[lane] = scale * sums[h];
    }
  }
};

}  // namespace tern::kernels
