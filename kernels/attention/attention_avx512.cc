// Attention over a paged cache on vectors of 16 floats.
#include <immintrin.h>

#include "kernels/attention/attention_impl.h"
#include "kernels/attention/attention_vec.h"

namespace tern::kernels {
namespace {

struct Simd {
  static constexpr int kWidth = 16;
  using F = VecF<16>;

  static TERN_ATTENTION_INLINE F MulAdd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }

  static TERN_ATTENTION_INLINE F Widen(const float* p) { return Load<16>(p); }
  static TERN_ATTENTION_INLINE F Widen(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static TERN_ATTENTION_INLINE F Widen(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
  static TERN_ATTENTION_INLINE void Narrow(F v, uint16_t* p) {
    const __m256i half = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
  }
};

}  // namespace

void AttendSegmentAvx512(const SegmentArgs& args, const SegmentState& out) {
  AttentionVec<Simd>::Attend(args, out);
}

void WriteKvHeadAvx512(const float* x, int64_t head_width, KvType type, void* row, float* scale) {
  AttentionVec<Simd>::Write(x, head_width, type, row, scale);
}

}  // namespace tern::kernels
