// Ternary product with AVX-512 VNNI for up to four tokens: reads each packed weight once. One
// 64-byte load holds two T2 blocks; its plane i is (v >> 2i) & 3, multiplied with 64 activations
// that ReorderTokensAvx512 has brought into the same order: [two blocks][plane][32 of the first
// block, 32 of the second].
#include <immintrin.h>

#include "kernels/ternary_gemm/ternary_gemm_impl.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {
namespace {

// To the L2, whose misses in flight cover the memory's bandwidth; those of the L1 cover half of it
// (measured on Zen 4: 10 against 25 GB/s on one thread).
constexpr int64_t kPrefetchBytes = 8192;

// A whole number of groups of R rows ahead: the rows of a group are read side by side.
inline int64_t Ahead(int64_t group_bytes) {
  const int64_t group = group_bytes > 0 ? group_bytes : 1;
  return (kPrefetchBytes + group - 1) / group * group;
}

// Four registers to their four sums of lanes.
inline __m128i SumLanes(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  const __m512i all =
      _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i half =
      _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

template <int R, int M>
inline void AddTwoBlocks(const __m512i (&v)[R], const int8_t* x, int64_t ldx,
                         __m512i (&acc)[M][R]) {
  const __m512i mask = _mm512_set1_epi8(3);
#pragma GCC unroll 4
  for (unsigned i = 0; i < 4; ++i) {
    __m512i codes[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) codes[r] = _mm512_and_si512(_mm512_srli_epi16(v[r], 2 * i), mask);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      const __m512i a = _mm512_load_si512(x + m * ldx + 64 * i);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[m][r] = _mm512_dpbusd_epi32(acc[m][r], codes[r], a);
    }
  }
}

// R rows (1 or 4) from row n, M tokens.
template <int R, int M>
void Rows(const TernaryGemmArgs& args, int64_t m_begin, int64_t n, const int8_t* x) {
  const int64_t row_bytes = T2RowBytes(args.k), ldx = ReorderedK(args.k);
  const uint8_t* w = args.w_t2 + n * row_bytes;
  __m512i acc[M][R];
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) acc[m][r] = _mm512_setzero_si512();
  }
  const int64_t ahead = Ahead(R * row_bytes);
  int64_t byte = 0;
  __m512i v[R];
  for (; byte + 64 <= row_bytes; byte += 64) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      v[r] = _mm512_loadu_si512(w + r * row_bytes + byte);
      _mm_prefetch(reinterpret_cast<const char*>(w + r * row_bytes + byte + ahead), _MM_HINT_T1);
    }
    AddTwoBlocks<R, M>(v, x + byte * 4, ldx, acc);
  }
  if (byte < row_bytes) {  // One block left: the upper codes are 0.
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) v[r] = _mm512_maskz_loadu_epi32(0x00FF, w + r * row_bytes + byte);
    AddTwoBlocks<R, M>(v, x + byte * 4, ldx, acc);
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    const __m512i zero = _mm512_setzero_si512();
    const __m128i sums =
        R == 4 ? SumLanes(acc[m][0], acc[m][R - 3 > 0 ? 1 : 0], acc[m][R / 2], acc[m][R - 1])
               : SumLanes(acc[m][0], zero, zero, zero);
    const __m128i exact = _mm_sub_epi32(sums, _mm_set1_epi32(args.x_sum[m_begin + m]));
    const __m128 y = _mm_mul_ps(_mm_cvtepi32_ps(exact), _mm_set1_ps(args.out_scale[m_begin + m]));
    float* out = args.y + (m_begin + m) * args.ldy + n;
    if (R == 4) {
      _mm_storeu_ps(out, y);
    } else {
      _mm_store_ss(out, y);
    }
  }
}

template <int M>
void Tokens(const TernaryGemmArgs& args, const GemmRange& range, const int8_t* x) {
  int64_t n = range.n_begin;
  for (; n + 4 <= range.n_end; n += 4) Rows<4, M>(args, range.m_begin, n, x);
  for (; n < range.n_end; ++n) Rows<1, M>(args, range.m_begin, n, x);
}

}  // namespace

void ReorderTokensAvx512(const TernaryGemmArgs& args, int64_t m_begin, int64_t m_end,
                         int8_t* reordered) {
  const int64_t padded_k = T2PaddedK(args.k);
  for (int64_t m = m_begin; m < m_end; ++m) {
    const int8_t* x = args.x + m * args.ldx;
    int8_t* out = reordered + (m - m_begin) * ReorderedK(args.k);
    for (int64_t k = 0; k < padded_k; k += 256, out += 256) {
      for (int64_t i = 0; i < 4; ++i) {
        const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + k + 32 * i));
        const __m256i high =
            k + 128 < padded_k
                ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + k + 128 + 32 * i))
                : _mm256_setzero_si256();
        _mm512_store_si512(out + 64 * i, _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
      }
    }
  }
}

void TernaryGemmFewAvx512(const TernaryGemmArgs& args, const GemmRange& range,
                          const int8_t* reordered) {
  switch (range.m_end - range.m_begin) {
    case 1:
      return Tokens<1>(args, range, reordered);
    case 2:
      return Tokens<2>(args, range, reordered);
    case 3:
      return Tokens<3>(args, range, reordered);
    case 4:
      return Tokens<4>(args, range, reordered);
    default:
      return;
  }
}

}  // namespace tern::kernels
