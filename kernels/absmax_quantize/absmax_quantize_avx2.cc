// Activation quantizer with AVX2, ragged ends in plain C.
#include <immintrin.h>

#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/absmax_quantize/absmax_quantize_impl.h"

namespace tern::kernels {
namespace {

float AbsMax(const float* x, int64_t k) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
  __m256 max = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= k; i += 8)
    max = _mm256_max_ps(max, _mm256_and_ps(magnitude, _mm256_loadu_ps(x + i)));
  float lanes[8];
  _mm256_storeu_ps(lanes, max);
  float result = 0.0f;
  for (float lane : lanes) result = lane > result ? lane : result;
  for (; i < k; ++i) {
    const float magnitude_i = __builtin_fabsf(x[i]);
    result = magnitude_i > result ? magnitude_i : result;
  }
  return result;
}

// 32 products with the scale, rounded half to even, saturated to int8.
inline __m256i QuantizeBlock(const float* x, __m256 scale) {
  __m256i r[4];
  for (int i = 0; i < 4; ++i)
    r[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), scale));
  // Both packs work within 128-bit halves; the permutation restores the order.
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(r[0], r[1]), _mm256_packs_epi32(r[2], r[3]));
  return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// Adds the 32 int8 values to eight int32 lanes.
inline __m256i AddBytes(__m256i total, __m256i bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
  return _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

}  // namespace

void AbsmaxQuantizeRowAvx2(const float* x, int64_t k, int64_t padded_k, int8_t* q, float* gamma,
                           int32_t* sum) {
  const float amax = AbsMax(x, k);
  *gamma = amax < kActivationFloor ? kActivationFloor : amax;
  const __m256 scale = _mm256_set1_ps(127.0f / *gamma);
  __m256i total = _mm256_setzero_si256();
  for (int64_t i = 0; i < padded_k; i += 32) {
    float padded[32];
    const float* from = x + i;
    if (i + 32 > k) {
      for (int64_t j = 0; j < 32; ++j) padded[j] = i + j < k ? x[i + j] : 0.0f;
      from = padded;
    }
    const __m256i bytes = QuantizeBlock(from, scale);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i), bytes);
    total = AddBytes(total, bytes);
  }
  int32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), total);
  *sum = 0;
  for (int32_t lane : lanes) *sum += lane;
}

void DequantizeRowAvx2(const int8_t* q, int64_t k, float scale, float* out) {
  const __m256 factor = _mm256_set1_ps(scale);
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    const __m256i codes =
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + i)));
    _mm256_storeu_ps(out + i, _mm256_mul_ps(factor, _mm256_cvtepi32_ps(codes)));
  }
  for (; i < k; ++i) out[i] = scale * static_cast<float>(q[i]);
}

}  // namespace tern::kernels
