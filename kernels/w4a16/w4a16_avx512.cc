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

template <int kShift, int T>
inline void AddStep(__m512i words, __m512 table, const float* x, int64_t token_step,
                    __m512 (&part)[T]) {
  const __m512 weights = _mm512_permutexvar_ps(_mm512_srli_epi32(words, kShift), table);
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    part[t] = _mm512_fmadd_ps(_mm512_load_ps(x + t * token_step), weights, part[t]);
  }
}

template <int T>
void Rows(const W4A16Args& args, int64_t m_begin, const float* x, int64_t n_begin, int64_t n_end) {
  const int64_t groups = W4Groups(args.k), token_step = groups * kW4Group;
  const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512 symmetric = _mm512_sub_ps(codes, _mm512_set1_ps(8.0f));
  for (int64_t n = n_begin; n < n_end; ++n) {
    const uint8_t* w = args.w + n * groups * kW4GroupBytes;
    __m512 total[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) total[t] = _mm512_setzero_ps();
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t at = group * args.n + n;
      _mm_prefetch(reinterpret_cast<const char*>(w) + group * kW4GroupBytes + kPrefetchBytes,
                   _MM_HINT_T0);
      const __m512i words = _mm512_loadu_si512(w + group * kW4GroupBytes);
      const __m512 table =
          args.zeros_GN == nullptr
              ? symmetric
              : _mm512_sub_ps(codes, _mm512_set1_ps(static_cast<float>(args.zeros_GN[at])));
      const float* from = x + group * kW4Group;
      __m512 part[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) part[t] = _mm512_setzero_ps();
      AddStep<W4Shift(0), T>(words, table, from, token_step, part);
      AddStep<W4Shift(1), T>(words, table, from + 16, token_step, part);
      AddStep<W4Shift(2), T>(words, table, from + 32, token_step, part);
      AddStep<W4Shift(3), T>(words, table, from + 48, token_step, part);
      AddStep<W4Shift(4), T>(words, table, from + 64, token_step, part);
      AddStep<W4Shift(5), T>(words, table, from + 80, token_step, part);
      AddStep<W4Shift(6), T>(words, table, from + 96, token_step, part);
      AddStep<W4Shift(7), T>(words, table, from + 112, token_step, part);
      const __m512 scale = _mm512_set1_ps(Scale(args, at));
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) total[t] = _mm512_fmadd_ps(scale, part[t], total[t]);
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) args.y[(m_begin + t) * args.ldy + n] = Join(total[t]);
  }
}

}  // namespace

void W4A16RowsAvx512(const W4A16Args& args, int64_t m_begin, int tokens, const float* reordered,
                     int64_t n_begin, int64_t n_end) {
  switch (tokens) {
    case 1:
      return Rows<1>(args, m_begin, reordered, n_begin, n_end);
    case 2:
      return Rows<2>(args, m_begin, reordered, n_begin, n_end);
    case 4:
      return Rows<4>(args, m_begin, reordered, n_begin, n_end);
    default:
      return Rows<8>(args, m_begin, reordered, n_begin, n_end);
  }
}

}  // namespace tern::kernels
