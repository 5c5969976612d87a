// Activation quantizer with AVX-512, ragged ends by masks.
#include <immintrin.h>

#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/absmax_quantize/absmax_quantize_impl.h"

namespace tern::kernels {
namespace {

inline __mmask16 WordMask(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1 << count) - 1);
}

float AbsMax(const float* x, int64_t k) {
  __m512 max0 = _mm512_setzero_ps(), max1 = max0;
  int64_t i = 0;
  for (; i + 32 <= k; i += 32) {
    max0 = _mm512_max_ps(max0, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
    max1 = _mm512_max_ps(max1, _mm512_abs_ps(_mm512_loadu_ps(x + i + 16)));
  }
  for (; i < k; i += 16) {
    max0 = _mm512_max_ps(max0, _mm512_abs_ps(_mm512_maskz_loadu_ps(WordMask(k - i), x + i)));
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(max0, max1));
}

}  // namespace

void AbsmaxQuantizeRowAvx512(const float* x, int64_t k, int64_t padded_k, int8_t* q, float* gamma,
                             int32_t* sum) {
  const float amax = AbsMax(x, k);
  *gamma = amax < kActivationFloor ? kActivationFloor : amax;
  const __m512 scale = _mm512_set1_ps(127.0f / *gamma);
  __m512i total = _mm512_setzero_si512();
  for (int64_t i = 0; i < padded_k; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(WordMask(k - i), x + i);
    // Rounds half to even; narrowing saturates to -128 .. 127. Masked elements are 0 and stay 0.
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(v, scale));
    const __m128i bytes = _mm512_cvtsepi32_epi8(rounded);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), bytes);
    total = _mm512_add_epi32(total, _mm512_cvtepi8_epi32(bytes));
  }
  *sum = _mm512_reduce_add_epi32(total);
}

void DequantizeRowAvx512(const int8_t* q, int64_t k, float scale, float* out) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t i = 0; i < k; i += 16) {
    const __mmask16 mask = WordMask(k - i);
    const __m512i codes = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, q + i));
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(factor, _mm512_cvtepi32_ps(codes)));
  }
}

}  // namespace tern::kernels
