// Ternary product with AVX-512 VNNI, many tokens. vpdpbusd multiplies unsigned codes with signed
// activations and adds four products to each int32 lane; the code is weight + 1, so the row sum of
// the activations is taken off at the end.
//
//   panel: [k/4][32 rows][4 k]      tile: 32 rows x 12 tokens = 24 registers of sums
//   each step of 4 k: 2 loads of codes, 12 broadcasts of 4 activations, 24 vpdpbusd
//
// Sums stay in int32: |sum| <= 2 * 128 * K fits for K < 2^23.
#include <immintrin.h>

#include "kernels/ternary_gemm/ternary_gemm_impl.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {
namespace {

constexpr int64_t kRows = kPanelRowsAvx512;
constexpr int64_t kTokens = 12;
constexpr int64_t kStepBytes = kRows * 4;  // Panel bytes of four k.

inline __m512i LoadTwoRows(const uint8_t* low, const uint8_t* high) {
  const __m512i first =
      _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low)));
  return _mm512_inserti64x4(first, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)), 1);
}

// One T2 block of 16 rows to codes: out[(8 i + j) * kStepBytes] = bytes of k = 32 i + 4 j .. + 3
// for all rows. Rows r and r + 8 share a register; a transposition of 8 x 8 words within each half
// brings the rows into the lanes.
inline void UnpackBlock(const uint8_t* const* rows, uint8_t* out) {
  __m512i r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = LoadTwoRows(rows[i], rows[i + 8]);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
  const __m512i high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
  const __m512i mask = _mm512_set1_epi8(3);
  for (int j = 0; j < 8; ++j) {
    const __m512i word = _mm512_permutex2var_epi64(r[j & 3], j < 4 ? low : high, r[(j & 3) + 4]);
    for (int i = 0; i < 4; ++i) {
      const __m512i codes =
          _mm512_and_si512(_mm512_srli_epi16(word, static_cast<unsigned>(2 * i)), mask);
      _mm512_store_si512(out + (8 * i + j) * kStepBytes, codes);
    }
  }
}

// Rows n .. n + 31 (the last row again beyond n_end) to one panel.
void UnpackPanel(const TernaryGemmArgs& args, int64_t n, int64_t n_end, uint8_t* panel) {
  const int64_t row_bytes = T2RowBytes(args.k);
  for (int64_t half = 0; half < 2; ++half) {
    const uint8_t* rows[16];
    for (int64_t i = 0; i < 16; ++i) {
      const int64_t row = n + half * 16 + i;
      rows[i] = args.w_t2 + (row < n_end ? row : n_end - 1) * row_bytes;
    }
    for (int64_t block = 0; block < row_bytes / kT2BlockBytes; ++block) {
      UnpackBlock(rows, panel + block * 32 * kStepBytes + half * 64);
      for (int i = 0; i < 16; ++i) rows[i] += kT2BlockBytes;
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
  __mmask16 keep[2];  // Which of the 2 x 16 rows exist.
};

inline __m512i BroadcastFour(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

// acc += codes * activations. As an instruction and not as the intrinsic: GCC 12 copies each
// accumulator to another register and back around the intrinsic in this loop, which halves the
// speed.
inline void MultiplyAdd(__m512i& acc, __m512i codes, __m512i activations) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(activations));
}

template <int T>
__attribute__((noinline)) void MultiplyTile(const Tile& tile) {
  __m512i acc[2][T];
#pragma GCC unroll 12
  for (int t = 0; t < T; ++t) acc[0][t] = acc[1][t] = _mm512_setzero_si512();
  const uint8_t* w = tile.panel;
  // Tokens in groups of four behind one pointer, so that addresses fit the general registers.
  const int8_t* x[3] = {tile.x, tile.x + 4 * tile.ldx, tile.x + 8 * tile.ldx};
  const int64_t ldx = tile.ldx;
  for (int64_t step = tile.steps; step > 0; --step) {
    const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
    w += kStepBytes;
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
      const __m512i a = BroadcastFour(x[t / 4] + (t % 4) * ldx);
      MultiplyAdd(acc[0][t], w0, a);
      MultiplyAdd(acc[1][t], w1, a);
    }
    for (auto& p : x) p += 4;
  }
#pragma GCC unroll 12
  for (int t = 0; t < T; ++t) {
    const __m512i sum = _mm512_set1_epi32(tile.x_sum[t]);
    const __m512 scale = _mm512_set1_ps(tile.out_scale[t]);
    for (int half = 0; half < 2; ++half) {
      const __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(acc[half][t], sum));
      _mm512_mask_storeu_ps(tile.y + t * tile.ldy + half * 16, tile.keep[half],
                            _mm512_mul_ps(value, scale));
    }
  }
}

void MultiplyTokens(const Tile& tile, int64_t tokens) {
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
    case 6:
      return MultiplyTile<6>(tile);
    case 7:
      return MultiplyTile<7>(tile);
    case 8:
      return MultiplyTile<8>(tile);
    case 9:
      return MultiplyTile<9>(tile);
    case 10:
      return MultiplyTile<10>(tile);
    case 11:
      return MultiplyTile<11>(tile);
    default:
      return MultiplyTile<kTokens>(tile);
  }
}

__mmask16 MaskOf(int64_t rows) {
  return static_cast<__mmask16>(rows >= 16 ? 0xFFFF : rows <= 0 ? 0 : (1 << rows) - 1);
}

}  // namespace

void TernaryGemmManyAvx512(const TernaryGemmArgs& args, const GemmRange& range, uint8_t* buffer,
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
                        {MaskOf(n1 - n), MaskOf(n1 - n - 16)}};
        MultiplyTokens(tile, tokens);
      }
    }
  }
}

}  // namespace tern::kernels
