// Many tokens with registers of 256 bits, for ternary_gemm_avx2.cc and ternary_gemm_avxvnni.cc:
// panels of unpacked rows and tiles of 16 rows x 6 tokens. Only for files compiled for AVX2.
//
//   panel: [k/4][16 rows][4 k]      tile: 16 rows x 6 tokens = 12 registers of sums
//
// How a tile adds up is the Sums of the file:
//   template <int T> Add(panel, x, ldx, steps, acc): acc[half][t] += int32 sums of `steps` steps
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/common/inline.h"
#include "kernels/ternary_gemm/ternary_gemm_impl.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {

template <class Sums>
struct TernaryMany256 {
  static constexpr int64_t kRows = kPanelRows256;
  static constexpr int64_t kTokens = 6;
  static constexpr int64_t kStepBytes = kRows * 4;

  // One T2 block of 8 rows to codes: out[(8 i + j) * kStepBytes] = bytes of k = 32 i + 4 j .. + 3
  // for all rows.
  static TERN_INLINE void UnpackBlock(const uint8_t* const* rows, uint8_t* out) {
    __m256i r[8], t[8];
    for (int i = 0; i < 8; ++i)
      r[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[i]));
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
      t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
      r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
      r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
      r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    const __m256i mask = _mm256_set1_epi8(3);
    for (int j = 0; j < 8; ++j) {
      const __m256i word = j < 4 ? _mm256_permute2x128_si256(r[j & 3], r[(j & 3) + 4], 0x20)
                                 : _mm256_permute2x128_si256(r[j & 3], r[(j & 3) + 4], 0x31);
      for (int i = 0; i < 4; ++i) {
        const __m256i codes = _mm256_and_si256(_mm256_srli_epi16(word, 2 * i), mask);
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + (8 * i + j) * kStepBytes), codes);
      }
    }
  }

  // Rows n .. n + 15 (the last row again beyond n_end) to one panel.
  static void UnpackPanel(const TernaryGemmArgs& args, int64_t n, int64_t n_end, uint8_t* panel) {
    const int64_t row_bytes = T2RowBytes(args.k);
    for (int64_t half = 0; half < 2; ++half) {
      const uint8_t* rows[8];
      for (int64_t i = 0; i < 8; ++i) {
        const int64_t row = n + half * 8 + i;
        rows[i] = args.w_t2 + (row < n_end ? row : n_end - 1) * row_bytes;
      }
      for (int64_t block = 0; block < row_bytes / kT2BlockBytes; ++block) {
        UnpackBlock(rows, panel + block * 32 * kStepBytes + half * 32);
        for (int i = 0; i < 8; ++i) rows[i] += kT2BlockBytes;
      }
    }
  }

  struct Tile {
    const uint8_t* panel;
    const int8_t* x;
    int64_t ldx, steps;
    const int32_t* x_sum;
    const float* out_scale;
    float* y;
    int64_t ldy;
    int64_t rows;  // How many of the 16 rows exist.
  };

  static TERN_INLINE __m256i MaskOf(int64_t rows) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(rows)), index);
  }

  template <int T>
  static __attribute__((noinline)) void MultiplyTile(const Tile& tile) {
    __m256i acc[2][T];
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) acc[0][t] = acc[1][t] = _mm256_setzero_si256();
    Sums::template Add<T>(tile.panel, tile.x, tile.ldx, tile.steps, acc);
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) {
      const __m256i sum = _mm256_set1_epi32(tile.x_sum[t]);
      const __m256 scale = _mm256_set1_ps(tile.out_scale[t]);
      for (int half = 0; half < 2; ++half) {
        const __m256 value =
            _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(acc[half][t], sum)), scale);
        _mm256_maskstore_ps(tile.y + t * tile.ldy + half * 8, MaskOf(tile.rows - half * 8), value);
      }
    }
  }

  static void MultiplyTokens(const Tile& tile, int64_t tokens) {
    switch (tokens) {
      case 1:
        return MultiplyTile<1>(tile);
      case 2:
        return MultiplyTile<2>(tile);
      case 3:
        return MultiplyTile<3>(tile);
      case 4:
        return MultiplyTile<4>(tile);
      case 5:
        return MultiplyTile<5>(tile);
      default:
        return MultiplyTile<kTokens>(tile);
    }
  }

  static void Run(const TernaryGemmArgs& args, const GemmRange& range, uint8_t* buffer,
                  int64_t panels) {
    const int64_t padded_k = T2PaddedK(args.k), panel_bytes = kRows * padded_k;
    for (int64_t n0 = range.n_begin; n0 < range.n_end; n0 += panels * kRows) {
      const int64_t n1 = n0 + panels * kRows < range.n_end ? n0 + panels * kRows : range.n_end;
      for (int64_t n = n0; n < n1; n += kRows)
        UnpackPanel(args, n, n1, buffer + (n - n0) / kRows * panel_bytes);
      for (int64_t m = range.m_begin; m < range.m_end; m += kTokens) {
        const int64_t tokens = range.m_end - m < kTokens ? range.m_end - m : kTokens;
        for (int64_t n = n0; n < n1; n += kRows) {
          const Tile tile{buffer + (n - n0) / kRows * panel_bytes,
                          args.x + m * args.ldx,
                          args.ldx,
                          padded_k / 4,
                          args.x_sum + m,
                          args.out_scale + m,
                          args.y + m * args.ldy + n,
                          args.ldy,
                          n1 - n};
          MultiplyTokens(tile, tokens);
        }
      }
    }
  }
};

}  // namespace tern::kernels
