// 4-bit product with AVX2 and FMA: the 16 lanes of the sum are two registers; codes are shifted,
// masked, freed of the zero point as integers and converted.
#include <immintrin.h>

#include "kernels/w4a16/w4a16_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kPrefetchBytes = 2048;  // As in the AVX-512 version.

inline float Scale(const W4A16Args& args, int64_t at) {
  if (args.scale_type == Float16Type::kF16) return _cvtsh_ss(args.scales_GN[at]);
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(args.scales_GN[at] << 16)));
}

// 16 lanes to one: halves added, as common/lanes.h states.
inline float Join(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

template <int kShift, int T>
inline void AddStep(const __m256i (&words)[2], __m256i zero, const float* x, int64_t token_step,
                    __m256 (&part)[T][2]) {
  const __m256i mask = _mm256_set1_epi32(15);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m256i codes = _mm256_and_si256(_mm256_srli_epi32(words[half], kShift), mask);
    const __m256 weights = _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, zero));
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const __m256 a = _mm256_load_ps(x + t * token_step + 8 * half);
      part[t][half] = _mm256_fmadd_ps(a, weights, part[t][half]);
    }
  }
}

template <int T>
inline void AddGroup(const uint8_t* w, int zero, float scale, const float* x, int64_t token_step,
                     __m256 (&total)[T][2]) {
  const __m256i words[2] = {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)),
                            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32))};
  const __m256i zeros = _mm256_set1_epi32(zero);
  __m256 part[T][2];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) part[t][0] = part[t][1] = _mm256_setzero_ps();
  AddStep<W4Shift(0), T>(words, zeros, x, token_step, part);
  AddStep<W4Shift(1), T>(words, zeros, x + 16, token_step, part);
  AddStep<W4Shift(2), T>(words, zeros, x + 32, token_step, part);
  AddStep<W4Shift(3), T>(words, zeros, x + 48, token_step, part);
  AddStep<W4Shift(4), T>(words, zeros, x + 64, token_step, part);
  AddStep<W4Shift(5), T>(words, zeros, x + 80, token_step, part);
  AddStep<W4Shift(6), T>(words, zeros, x + 96, token_step, part);
  AddStep<W4Shift(7), T>(words, zeros, x + 112, token_step, part);
  const __m256 factor = _mm256_set1_ps(scale);
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
    total[t][0] = _mm256_fmadd_ps(factor, part[t][0], total[t][0]);
    total[t][1] = _mm256_fmadd_ps(factor, part[t][1], total[t][1]);
  }
}

template <int T>
void Rows(const W4A16Args& args, int64_t m_begin, const float* x, int64_t n_begin, int64_t n_end) {
  const int64_t groups = W4Groups(args.k), token_step = groups * kW4Group;
  for (int64_t n = n_begin; n < n_end; ++n) {
    const uint8_t* w = args.w + n * groups * kW4GroupBytes;
    __m256 total[T][2];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) total[t][0] = total[t][1] = _mm256_setzero_ps();
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t at = group * args.n + n;
      _mm_prefetch(reinterpret_cast<const char*>(w) + group * kW4GroupBytes + kPrefetchBytes,
                   _MM_HINT_T0);
      AddGroup<T>(w + group * kW4GroupBytes, args.zeros_GN == nullptr ? 8 : args.zeros_GN[at],
                  Scale(args, at), x + group * kW4Group, token_step, total);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      args.y[(m_begin + t) * args.ldy + n] = Join(total[t][0], total[t][1]);
    }
  }
}

}  // namespace

void W4A16RowsAvx2(const W4A16Args& args, int64_t m_begin, int tokens, const float* reordered,
                   int64_t n_begin, int64_t n_end) {
  switch (tokens) {
    case 1:
      return Rows<1>(args, m_begin, reordered, n_begin, n_end);
    case 2:
      return Rows<2>(args, m_begin, reordered, n_begin, n_end);
    default:
      return Rows<4>(args, m_begin, reordered, n_begin, n_end);
  }
}

}  // namespace tern::kernels
