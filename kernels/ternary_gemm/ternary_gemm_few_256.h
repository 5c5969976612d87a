// Up to four tokens with registers of 256 bits, for ternary_gemm_few_avx2.cc and
// ternary_gemm_few_avxvnni.cc: reads each packed weight once. One 32-byte load is a T2 block;
// planes 0 and 2 are masked at 0x03 (after a shift by 4 for plane 2), planes 1 and 3 at 0x0C, which
// leaves them four times as large, so their sum is kept apart and divided by 4 at the end: one
// shift a block instead of three. Only for files compiled for AVX2.
//
// How products add up is the Sums of the file:
//   kBlocks                     blocks after which Total is due
//   Add(sum, codes, x)          sum + products, in its own elements
//   Total(even, odd)            eight int32: even + odd / 4
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/common/inline.h"
#include "kernels/ternary_gemm/ternary_gemm_impl.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {

template <class Sums>
struct TernaryFew256 {
  // To the L2, whose misses in flight cover the memory's bandwidth; those of the L1 cover half of
  // it (measured on Zen 4: 10 against 25 GB/s on one thread).
  static constexpr int64_t kPrefetchBytes = 8192;

  // A whole number of groups of R rows ahead: the rows of a group are read side by side.
  static TERN_INLINE int64_t Ahead(int64_t group_bytes) {
    const int64_t group = group_bytes > 0 ? group_bytes : 1;
    return (kPrefetchBytes + group - 1) / group * group;
  }

  // acc[m][r] += `blocks` <= Sums::kBlocks blocks of R rows times M tokens.
  template <int R, int M>
  static TERN_INLINE void AddBlocks(const uint8_t* w, int64_t row_bytes, const int8_t* x,
                                    int64_t ldx, int64_t blocks, __m256i (&acc)[M][R]) {
    const int64_t ahead = Ahead(R * row_bytes);
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0C);
    __m256i even[M][R], odd[M][R];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) even[m][r] = odd[m][r] = _mm256_setzero_si256();
    }
    for (; blocks > 0; --blocks, w += kT2BlockBytes, x += kT2BlockWeights) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + r * row_bytes));
        _mm_prefetch(reinterpret_cast<const char*>(w + r * row_bytes + ahead), _MM_HINT_T1);
        const __m256i shifted = _mm256_srli_epi16(v, 4);
        const __m256i planes[4] = {_mm256_and_si256(v, low), _mm256_and_si256(v, high),
                                   _mm256_and_si256(shifted, low), _mm256_and_si256(shifted, high)};
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          const __m256i* a = reinterpret_cast<const __m256i*>(x + m * ldx);
          even[m][r] = Sums::Add(even[m][r], planes[0], _mm256_loadu_si256(a));
          odd[m][r] = Sums::Add(odd[m][r], planes[1], _mm256_loadu_si256(a + 1));
          even[m][r] = Sums::Add(even[m][r], planes[2], _mm256_loadu_si256(a + 2));
          odd[m][r] = Sums::Add(odd[m][r], planes[3], _mm256_loadu_si256(a + 3));
        }
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        acc[m][r] = _mm256_add_epi32(acc[m][r], Sums::Total(even[m][r], odd[m][r]));
    }
  }

  static TERN_INLINE int32_t SumLanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
    return _mm_cvtsi128_si32(s);
  }

  template <int R, int M>
  static void Rows(const TernaryGemmArgs& args, int64_t m_begin, int64_t n) {
    const int64_t row_bytes = T2RowBytes(args.k), blocks = row_bytes / kT2BlockBytes;
    const uint8_t* w = args.w_t2 + n * row_bytes;
    const int8_t* x = args.x + m_begin * args.ldx;
    __m256i acc[M][R];
    for (int m = 0; m < M; ++m) {
      for (int r = 0; r < R; ++r) acc[m][r] = _mm256_setzero_si256();
    }
    for (int64_t b = 0; b < blocks; b += Sums::kBlocks) {
      AddBlocks<R, M>(w + b * kT2BlockBytes, row_bytes, x + b * kT2BlockWeights, args.ldx,
                      blocks - b < Sums::kBlocks ? blocks - b : Sums::kBlocks, acc);
    }
    for (int m = 0; m < M; ++m) {
      for (int r = 0; r < R; ++r) {
        const int32_t exact = SumLanes(acc[m][r]) - args.x_sum[m_begin + m];
        args.y[(m_begin + m) * args.ldy + n + r] =
            static_cast<float>(exact) * args.out_scale[m_begin + m];
      }
    }
  }

  // R * M <= 4: two sums each leave registers for the masks and planes.
  template <int R, int M>
  static void Tokens(const TernaryGemmArgs& args, const GemmRange& range) {
    int64_t n = range.n_begin;
    for (; n + R <= range.n_end; n += R) Rows<R, M>(args, range.m_begin, n);
    for (; n < range.n_end; ++n) Rows<1, M>(args, range.m_begin, n);
  }

  static void Run(const TernaryGemmArgs& args, const GemmRange& range) {
    switch (range.m_end - range.m_begin) {
      case 1:
        return Tokens<4, 1>(args, range);
      case 2:
        return Tokens<2, 2>(args, range);
      case 3:
        return Tokens<1, 3>(args, range);
      case 4:
        return Tokens<1, 4>(args, range);
      default:
        return;
    }
  }
};

}  // namespace tern::kernels
