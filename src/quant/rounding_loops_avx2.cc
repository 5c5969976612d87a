// rounding_loops.h with AVX2. Nothing here has a name that another file's code could share, so no
// AVX2 code can be linked into other versions: grid.h's functions are written out once more, as
// vectors, and the last columns go through a zero-padded vector.
#include <immintrin.h>

#include "quant/rounding_loops_impl.h"

namespace tern::quant {
namespace {

constexpr int64_t kWidth = 8;

// RoundHalfEven of grid.h.
inline __m256 HalfEven(__m256 x) {
  const __m256 magic = _mm256_set1_ps(12582912.0f);
  return _mm256_sub_ps(_mm256_add_ps(x, magic), magic);
}

// The operand that is kept for equal values and NaN is the second, as in std::min and std::max.
inline __m256 Clamp(__m256 x, const Grid& grid) {
  return _mm256_min_ps(_mm256_set1_ps(grid.hi), _mm256_max_ps(_mm256_set1_ps(grid.lo), x));
}

struct IntegerRound {
  const Grid& grid;
  __m256 operator()(__m256 x) const { return HalfEven(Clamp(x, grid)); }
};

// The sign of a zero is lost, which no error sees.
struct FloatRound {
  const Grid& grid;
  __m256 operator()(__m256 x) const {
    x = Clamp(x, grid);
    const __m256i field =
        _mm256_and_si256(_mm256_srli_epi32(_mm256_castps_si256(x), 23), _mm256_set1_epi32(0xFF));
    const __m256i power =
        _mm256_slli_epi32(_mm256_max_epi32(field, _mm256_set1_epi32(grid.min_exponent + 127)), 23);
    const __m256 quantum =
        _mm256_mul_ps(_mm256_castsi256_ps(power),
                      _mm256_set1_ps(1.0f / static_cast<float>(1 << grid.fraction_bits)));
    return _mm256_mul_ps(HalfEven(_mm256_div_ps(x, quantum)), quantum);
  }
};

template <class Round>
inline __m256 Squared(__m256 w, __m256 importance, __m256 s, __m256 zero, const Round& round) {
  const __m256 value =
      _mm256_mul_ps(_mm256_sub_ps(round(_mm256_add_ps(_mm256_div_ps(w, s), zero)), zero), s);
  const __m256 difference = _mm256_sub_ps(value, w);
  return _mm256_mul_ps(_mm256_mul_ps(difference, difference), importance);
}

template <class Round>
double ErrorOf(const WeightBlock& block, float scale, float zero_point, const Round& round) {
  const __m256 s = _mm256_set1_ps(scale), zero = _mm256_set1_ps(zero_point),
               one = _mm256_set1_ps(1.0f);
  double total = 0;
  for (int64_t row = 0; row < block.rows; ++row) {
    const float* w = block.w + row * block.ldw;
    __m256 sums = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + kWidth <= block.columns; i += kWidth) {
      const __m256 importance =
          block.importance != nullptr ? _mm256_loadu_ps(block.importance + i) : one;
      sums = _mm256_add_ps(sums, Squared(_mm256_loadu_ps(w + i), importance, s, zero, round));
    }
    float lanes[kWidth];
    _mm256_storeu_ps(lanes, sums);
    if (i < block.columns) {
      float last[kWidth] = {}, weight[kWidth] = {}, squared[kWidth];
      for (int64_t j = 0; i + j < block.columns; ++j) {
        last[j] = w[i + j];
        weight[j] = block.importance != nullptr ? block.importance[i + j] : 1.0f;
      }
      _mm256_storeu_ps(squared,
                       Squared(_mm256_loadu_ps(last), _mm256_loadu_ps(weight), s, zero, round));
      for (int64_t j = 0; i + j < block.columns; ++j) lanes[0] += squared[j];
    }
    for (int64_t lane = 0; lane < kWidth; ++lane) total += double{lanes[lane]};
  }
  return total;
}

}  // namespace

double RoundingErrorAvx2(const WeightBlock& block, const Grid& grid, float s, float zero) {
  return grid.integer ? ErrorOf(block, s, zero, IntegerRound{grid})
                      : ErrorOf(block, s, zero, FloatRound{grid});
}

void SubtractScaledAvx2(const float* x, float a, int64_t n, float* y) {
  const __m256 factor = _mm256_set1_ps(a);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const __m256 product = _mm256_mul_ps(factor, _mm256_loadu_ps(x + i));
    _mm256_storeu_ps(y + i, _mm256_sub_ps(_mm256_loadu_ps(y + i), product));
  }
  for (; i < n; ++i) y[i] -= a * x[i];
}

}  // namespace tern::quant
