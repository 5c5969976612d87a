// 4-bit product with AVX-512: a group of a row is one register of 16 words, one lane of the sum
// each. A shift brings the code of step e to the lowest four bits, which pick float(code - zero)
// from a table of 16 floats in a register: no masking, no conversion.
#include <immintrin.h>

#include "kernels/w4a16/w4a16_impl.h"

namespace tern::kernels {
namespace {

// Streams of one row are short; this far ahead covers memory latency.
constexpr int64_t kPrefetchBytes = 2048;

inline float Scale(const W4A16Args& args, int64_t at) {
  if (args.scale_type == Float16Type::kF16) return _cvtsh_ss(args.scales_GN[at]);
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(args.scales_GN[at] << 16)));
}

// 16 lanes to one: halves added, as common/lanes.h states.
inline float Join(__m512 v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// part[r][t] += step `kE` of a group: 16 weights of R rows times 16 activations of T tokens.
template <int kE, int R, int T>
inline void AddStep(const __m512i (&words)[R], const __m512 (&table)[R], const float* x,
                    int64_t token_step, __m512 (&part)[R][T]) {
  __m512 weights[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    weights[r] = _mm512_permutexvar_ps(_mm512_srli_epi32(words[r], W4Shift(kE)), table[r]);
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const __m512 a = _mm512_load_ps(x + t * token_step + kE * kW4Lanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) part[r][t] = _mm512_fmadd_ps(a, weights[r], part[r][t]);
  }
}

// R rows from n on. More rows at a time where the activations of T tokens leave the L1 cache.
template <int R, int T>
inline void RowBlock(const W4A16Args& args, int64_t m_begin, const float* x, int64_t n) {
  const int64_t groups = W4Groups(args.k), token_step = groups * kW4Group;
  const int64_t row_bytes = groups * kW4GroupBytes;
  const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512 symmetric = _mm512_sub_ps(codes, _mm512_set1_ps(8.0f));
  const uint8_t* w = args.w + n * row_bytes;
  __m512 total[R][T];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) total[r][t] = _mm512_setzero_ps();
  }
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t at = group * args.n + n;
    __m512i words[R];
    __m512 table[R], part[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const uint8_t* from = w + r * row_bytes + group * kW4GroupBytes;
      _mm_prefetch(reinterpret_cast<const char*>(from) + kPrefetchBytes, _MM_HINT_T0);
      words[r] = _mm512_loadu_si512(from);
      table[r] = args.zeros_GN == nullptr
                     ? symmetric
                     : _mm512_sub_ps(codes, _mm512_set1_ps(args.zeros_GN[at + r]));
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) part[r][t] = _mm512_setzero_ps();
    }
    const float* from = x + group * kW4Group;
    AddStep<0>(words, table, from, token_step, part);
    AddStep<1>(words, table, from, token_step, part);
    AddStep<2>(words, table, from, token_step, part);
    AddStep<3>(words, table, from, token_step, part);
    AddStep<4>(words, table, from, token_step, part);
    AddStep<5>(words, table, from, token_step, part);
    AddStep<6>(words, table, from, token_step, part);
    AddStep<7>(words, table, from, token_step, part);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m512 scale = _mm512_set1_ps(Scale(args, at + r));
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) total[r][t] = _mm512_fmadd_ps(scale, part[r][t], total[r][t]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) args.y[(m_begin + t) * args.ldy + n + r] = Join(total[r][t]);
  }
}

template <int R, int T>
void Rows(const W4A16Args& args, int64_t m_begin, const float* x, int64_t n_begin, int64_t n_end) {
  int64_t n = n_begin;
  for (; n + R <= n_end; n += R) RowBlock<R, T>(args, m_begin, x, n);
  for (; n < n_end; ++n) RowBlock<1, T>(args, m_begin, x, n);
}

}  // namespace

void W4A16RowsAvx512(const W4A16Args& args, int64_t m_begin, int tokens, const float* reordered,
                     int64_t n_begin, int64_t n_end) {
  switch (tokens) {
    case 1:
      return Rows<1, 1>(args, m_begin, reordered, n_begin, n_end);
    case 2:
      return Rows<2, 2>(args, m_begin, reordered, n_begin, n_end);
    case 4:
      return Rows<4, 4>(args, m_begin, reordered, n_begin, n_end);
    default:
      return Rows<2, 8>(args, m_begin, reordered, n_begin, n_end);
  }
}

}  // namespace tern::kernels
