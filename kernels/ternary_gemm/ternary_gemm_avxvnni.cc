// Ternary product with AVX-VNNI, many tokens: vpdpbusd multiplies four unsigned codes with four
// signed activations and adds them to an int32.
//
//   each step of 4 k: 2 loads of codes, 6 broadcasts, 12 vpdpbusd
#include <immintrin.h>

#include "kernels/ternary_gemm/ternary_gemm_impl.h"
#include "kernels/ternary_gemm/ternary_gemm_many_256.h"

namespace tern::kernels {
namespace {

typedef int32_t __attribute__((may_alias, aligned(1))) AnyFourBytes;

// acc0 += w0 * a, acc1 += w1 * a with a = the four activations at p in every word. As instructions
// and not as intrinsics, so that the sums stay where they are (see the AVX2 version).
inline void MultiplyAdd(__m256i& acc0, __m256i& acc1, __m256i w0, __m256i w1, const int8_t* p) {
  __m256i a;
  asm("vpbroadcastd %[p], %[a]\n\t"
      "%{vex%} vpdpbusd %[a], %[w0], %[acc0]\n\t"
      "%{vex%} vpdpbusd %[a], %[w1], %[acc1]"
      : [acc0] "+x"(acc0), [acc1] "+x"(acc1), [a] "=&x"(a)
      : [w0] "x"(w0), [w1] "x"(w1), [p] "m"(*reinterpret_cast<const AnyFourBytes*>(p)));
}

struct Sums {
  template <int T>
  static inline void Add(const uint8_t* w, const int8_t* x, int64_t ldx, int64_t steps,
                         __m256i (&acc)[2][T]) {
    const int8_t* groups[2] = {x, x + 3 * ldx};
    for (; steps > 0; --steps) {
      const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
      const __m256i w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + 32));
      w += 4 * kPanelRows256;
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t)
        MultiplyAdd(acc[0][t], acc[1][t], w0, w1, groups[t / 3] + (t % 3) * ldx);
      for (auto& p : groups) p += 4;
    }
  }
};

}  // namespace

void TernaryGemmManyAvxVnni(const TernaryGemmArgs& args, const GemmRange& range, uint8_t* buffer,
                            int64_t panels) {
  TernaryMany256<Sums>::Run(args, range, buffer, panels);
}

}  // namespace tern::kernels
