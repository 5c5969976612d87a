// Weight quantizer with AVX-512: 16 packed bytes at a time from four runs of 16 weights, 32 apart.
#include <immintrin.h>

#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/count_codes.h"
#include "kernels/ternary_quantize/ternary_quantize_impl.h"

namespace tern::kernels {
namespace {

inline __mmask16 WordMask(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1 << count) - 1);
}

// Codes of 16 weights of which `left` exist (the others count as 0): clamping first gives what
// rounding first gives.
inline __m512i Codes(const float* w, int64_t left, __m512 inv_scale) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(WordMask(left), w), inv_scale);
  const __m512 clamped =
      _mm512_max_ps(_mm512_min_ps(scaled, one), _mm512_sub_ps(_mm512_setzero_ps(), one));
  return _mm512_add_epi32(_mm512_cvtps_epi32(clamped), _mm512_set1_epi32(1));
}

inline void PackBlock(const float* w, int64_t left, __m512 inv_scale, uint8_t* block) {
  for (int64_t half = 0; half < 2; ++half) {
    __m512i packed = _mm512_setzero_si512();
    for (int64_t plane = 3; plane >= 0; --plane) {
      const int64_t first = plane * kT2BlockBytes + half * 16;
      packed =
          _mm512_or_si512(_mm512_slli_epi32(packed, 2), Codes(w + first, left - first, inv_scale));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(block + half * 16), _mm512_cvtepi32_epi8(packed));
  }
}

}  // namespace

TernaryCounts TernaryQuantizeRowsAvx512(const float* w, int64_t row_begin, int64_t row_end,
                                        int64_t k, float inv_scale, uint8_t* t2,
                                        const uint8_t* previous) {
  const int64_t row_bytes = T2RowBytes(k);
  const __m512 factor = _mm512_set1_ps(inv_scale);
  TernaryCounts counts;
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t byte = 0; byte < row_bytes; byte += kT2BlockBytes) {
      uint8_t block[kT2BlockBytes];
      const int64_t begin = byte * 4, at = row * row_bytes + byte;
      PackBlock(w + row * k + begin, k - begin, factor, block);
      CountBlock(block, previous == nullptr ? nullptr : previous + at, counts);
      std::memcpy(t2 + at, block, kT2BlockBytes);
    }
  }
  counts.zeros -= (row_end - row_begin) * (T2PaddedK(k) - k);
  return counts;
}

}  // namespace tern::kernels
