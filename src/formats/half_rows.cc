// See half_rows.h.
#include "formats/half_rows.h"

#include "formats/half.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tern::formats {
namespace {

#if defined(__x86_64__)
// Returns how many were decoded: a multiple of 8.
__attribute__((target("avx,f16c"))) int64_t DecodeEights(const uint8_t* halves, int64_t count,
                                                         float* out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + 2 * i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(bits));
  }
  return i;
}

bool HasF16c() {
  static const bool has = __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
  return has;
}
#endif

}  // namespace

void DecodeFp16(const uint8_t* halves, int64_t count, float* out) {
  int64_t i = 0;
#if defined(__x86_64__)
  if (HasF16c()) i = DecodeEights(halves, count, out);
#endif
  for (; i < count; ++i) out[i] = LoadFp16(halves + 2 * i);
}

}  // namespace tern::formats
