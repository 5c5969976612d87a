// T2 with AVX2: whole blocks in registers, the last block of a ragged row through the scalar
// oracle.
#include <immintrin.h>

#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_pack/t2_impl.h"

namespace tern::kernels {
namespace {

inline __m256i Codes(const uint8_t* block, int plane) {
  const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block));
  return _mm256_and_si256(_mm256_srli_epi16(packed, 2 * plane), _mm256_set1_epi8(3));
}

}  // namespace

void PackT2RowAvx2(const int8_t* weights, int64_t k, uint8_t* packed) {
  const __m256i one = _mm256_set1_epi8(1);
  int64_t begin = 0;
  for (; begin + kT2BlockWeights <= k; begin += kT2BlockWeights, packed += kT2BlockBytes) {
    __m256i block = _mm256_setzero_si256();
    for (int plane = 3; plane >= 0; --plane) {
      const int8_t* first = weights + begin + plane * kT2BlockBytes;
      const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first));
      // The codes are below 3, so shifting words by two bits moves nothing across bytes.
      block = _mm256_or_si256(_mm256_slli_epi16(block, 2), _mm256_add_epi8(w, one));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed), block);
  }
  if (begin < k) PackT2RowRef(weights + begin, k - begin, packed);
}

void UnpackT2RowAvx2(const uint8_t* packed, int64_t k, int8_t* weights) {
  int64_t begin = 0;
  for (; begin + kT2BlockWeights <= k; begin += kT2BlockWeights, packed += kT2BlockBytes) {
    for (int plane = 0; plane < 4; ++plane) {
      const __m256i w = _mm256_sub_epi8(Codes(packed, plane), _mm256_set1_epi8(1));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + begin + plane * kT2BlockBytes), w);
    }
  }
  if (begin < k) UnpackT2RowRef(packed, k - begin, weights + begin);
}

void DequantizeT2RowAvx2(const uint8_t* packed, int64_t k, float scale, float* out) {
  // The value of each code by table; scale * 0 keeps the sign that the oracle's product has.
  const __m256 values =
      _mm256_setr_ps(scale * -1.0f, scale * 0.0f, scale * 1.0f, scale * 2.0f, 0, 0, 0, 0);
  int64_t begin = 0;
  for (; begin + kT2BlockWeights <= k; begin += kT2BlockWeights, packed += kT2BlockBytes) {
    for (int plane = 0; plane < 4; ++plane) {
      const __m256i codes = Codes(packed, plane);
      const __m128i halves[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
      for (int quarter = 0; quarter < 4; ++quarter) {
        const __m128i half = halves[quarter / 2];
        const __m256i index =
            _mm256_cvtepu8_epi32(quarter % 2 == 0 ? half : _mm_srli_si128(half, 8));
        _mm256_storeu_ps(out + begin + plane * kT2BlockBytes + quarter * 8,
                         _mm256_permutevar8x32_ps(values, index));
      }
    }
  }
  if (begin < k) DequantizeT2RowRef(packed, k - begin, scale, out + begin);
}

}  // namespace tern::kernels
