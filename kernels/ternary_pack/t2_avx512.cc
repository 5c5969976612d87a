// T2 with AVX-512: a block is 128 weights in two registers, or 32 packed bytes in one half
// register.
#include <immintrin.h>

#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_pack/t2_impl.h"

namespace tern::kernels {
namespace {

// The lowest `count` of 32 bytes.
inline __mmask32 ByteMask(int64_t count) {
  return count >= 32 ? 0xFFFFFFFFu : count <= 0 ? 0u : (1u << count) - 1u;
}

inline __mmask16 WordMask(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1 << count) - 1);
}

inline __m256i Codes(const uint8_t* block, int plane) {
  const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block));
  return _mm256_and_si256(_mm256_srli_epi16(packed, 2 * plane), _mm256_set1_epi8(3));
}

}  // namespace

void PackT2RowAvx512(const int8_t* weights, int64_t k, uint8_t* packed) {
  const __m256i one = _mm256_set1_epi8(1);
  for (int64_t begin = 0; begin < k; begin += kT2BlockWeights, packed += kT2BlockBytes) {
    __m256i block = _mm256_setzero_si256();
    for (int plane = 3; plane >= 0; --plane) {
      const int64_t first = begin + plane * kT2BlockBytes;
      const __m256i w = _mm256_maskz_loadu_epi8(ByteMask(k - first), weights + first);
      // The codes are below 3, so shifting words by two bits moves nothing across bytes.
      block = _mm256_or_si256(_mm256_slli_epi16(block, 2), _mm256_add_epi8(w, one));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed), block);
  }
}

void UnpackT2RowAvx512(const uint8_t* packed, int64_t k, int8_t* weights) {
  for (int64_t begin = 0; begin < k; begin += kT2BlockWeights, packed += kT2BlockBytes) {
    for (int plane = 0; plane < 4; ++plane) {
      const int64_t first = begin + plane * kT2BlockBytes;
      const __m256i w = _mm256_sub_epi8(Codes(packed, plane), _mm256_set1_epi8(1));
      _mm256_mask_storeu_epi8(weights + first, ByteMask(k - first), w);
    }
  }
}

void DequantizeT2RowAvx512(const uint8_t* packed, int64_t k, float scale, float* out) {
  // The value of each code by table; scale * 0 keeps the sign that the oracle's product has.
  const __m512 values = _mm512_setr_ps(scale * -1.0f, scale * 0.0f, scale * 1.0f, scale * 2.0f, 0,
                                       0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  for (int64_t begin = 0; begin < k; begin += kT2BlockWeights, packed += kT2BlockBytes) {
    for (int plane = 0; plane < 4; ++plane) {
      const __m256i codes = Codes(packed, plane);
      const __m128i halves[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
      for (int half = 0; half < 2; ++half) {
        const int64_t first = begin + plane * kT2BlockBytes + half * 16;
        const __m512 w = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(halves[half]), values);
        _mm512_mask_storeu_ps(out + first, WordMask(k - first), w);
      }
    }
  }
}

}  // namespace tern::kernels
