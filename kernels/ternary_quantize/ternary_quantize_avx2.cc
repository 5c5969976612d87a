// Weight quantizer with AVX2: a block of 128 weights to 32 packed bytes; a ragged block through a
// zero-padded copy.
#include <immintrin.h>

#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/count_codes.h"
#include "kernels/ternary_quantize/ternary_quantize_impl.h"

namespace tern::kernels {
namespace {

// Weights of 8 elements as int32: clamping first gives what rounding first gives.
inline __m256i Ternary(const float* w, __m256 inv_scale) {
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(w), inv_scale);
  return _mm256_cvtps_epi32(
      _mm256_max_ps(_mm256_min_ps(scaled, one), _mm256_sub_ps(_mm256_setzero_ps(), one)));
}

// Codes of 32 consecutive weights, one a byte.
inline __m256i Codes(const float* w, __m256 inv_scale) {
  const __m256i low = _mm256_packs_epi32(Ternary(w, inv_scale), Ternary(w + 8, inv_scale));
  const __m256i high = _mm256_packs_epi32(Ternary(w + 16, inv_scale), Ternary(w + 24, inv_scale));
  // Both packs work within 128-bit halves; the permutation restores the order.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
  return _mm256_add_epi8(bytes, _mm256_set1_epi8(1));
}

inline void PackBlock(const float* w, __m256 inv_scale, uint8_t* block) {
  __m256i packed = _mm256_setzero_si256();
  for (int64_t plane = 3; plane >= 0; --plane) {
    packed =
        _mm256_or_si256(_mm256_slli_epi16(packed, 2), Codes(w + plane * kT2BlockBytes, inv_scale));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(block), packed);
}

}  // namespace

TernaryCounts TernaryQuantizeRowsAvx2(const float* w, int64_t row_begin, int64_t row_end, int64_t k,
                                      float inv_scale, uint8_t* t2, const uint8_t* previous) {
  const int64_t row_bytes = T2RowBytes(k);
  const __m256 factor = _mm256_set1_ps(inv_scale);
  TernaryCounts counts;
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t byte = 0; byte < row_bytes; byte += kT2BlockBytes) {
      uint8_t block[kT2BlockBytes];
      float padded[kT2BlockWeights];
      const int64_t begin = byte * 4, at = row * row_bytes + byte;
      const float* from = w + row * k + begin;
      if (begin + kT2BlockWeights > k) {
        for (int64_t i = 0; i < kT2BlockWeights; ++i) padded[i] = begin + i < k ? from[i] : 0.0f;
        from = padded;
      }
      PackBlock(from, factor, block);
      CountBlock(block, previous == nullptr ? nullptr : previous + at, counts);
      std::memcpy(t2 + at, block, kT2BlockBytes);
    }
  }
  counts.zeros -= (row_end - row_begin) * (T2PaddedK(k) - k);
  return counts;
}

}  // namespace tern::kernels
