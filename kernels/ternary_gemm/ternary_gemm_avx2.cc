// Ternary product with AVX2, many tokens. vpmaddubsw multiplies unsigned codes with signed
// activations and adds pairs to int16: at most 2 * 2 * 128 = 512 in size, so 64 steps fit an int16
// exactly (-32768 .. 32512) before they are widened.
//
//   each step of 4 k: 2 loads of codes, 6 broadcasts, 12 vpmaddubsw, 12 vpaddw; widened every 64
//   steps
#include <immintrin.h>

#include "kernels/ternary_gemm/ternary_gemm_impl.h"
#include "kernels/ternary_gemm/ternary_gemm_many_256.h"

namespace tern::kernels {
namespace {

constexpr int64_t kStepsPerWidening = 64;

typedef int32_t __attribute__((may_alias, aligned(1))) AnyFourBytes;

// acc0 += w0 * a, acc1 += w1 * a with a = the four activations at p in every word. As instructions
// and not as intrinsics: the tile needs all 16 registers, and GCC 12 moves the products ahead and
// spills eight of the sums in this loop, which halves the speed.
inline void MultiplyAdd(__m256i& acc0, __m256i& acc1, __m256i w0, __m256i w1, const int8_t* p) {
  __m256i a, product;
  asm("vpbroadcastd %[p], %[a]\n\t"
      "vpmaddubsw %[a], %[w0], %[product]\n\t"
      "vpaddw %[product], %[acc0], %[acc0]\n\t"
      "vpmaddubsw %[a], %[w1], %[a]\n\t"
      "vpaddw %[a], %[acc1], %[acc1]"
      : [acc0] "+x"(acc0), [acc1] "+x"(acc1), [a] "=&x"(a), [product] "=&x"(product)
      : [w0] "x"(w0), [w1] "x"(w1), [p] "m"(*reinterpret_cast<const AnyFourBytes*>(p)));
}

// acc32 += the sums of `steps` <= kStepsPerWidening steps.
template <int T>
inline void AddSteps(const uint8_t* w, const int8_t* x, int64_t ldx, int64_t steps,
                     __m256i (&acc32)[2][T]) {
  __m256i acc[2][T];
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) acc[0][t] = acc[1][t] = _mm256_setzero_si256();
  const int8_t* groups[2] = {x, x + 3 * ldx};
  for (; steps > 0; --steps) {
    const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
    const __m256i w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + 32));
    w += 4 * kPanelRows256;
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) {
      MultiplyAdd(acc[0][t], acc[1][t], w0, w1, groups[t / 3] + (t % 3) * ldx);
    }
    for (auto& p : groups) p += 4;
  }
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) {
    for (int half = 0; half < 2; ++half) {
      acc32[half][t] = _mm256_add_epi32(acc32[half][t], _mm256_madd_epi16(acc[half][t], ones));
    }
  }
}

struct Sums {
  template <int T>
  static inline void Add(const uint8_t* panel, const int8_t* x, int64_t ldx, int64_t steps,
                         __m256i (&acc)[2][T]) {
    for (int64_t step = 0; step < steps; step += kStepsPerWidening) {
      const int64_t left = steps - step;
      AddSteps<T>(panel + step * 4 * kPanelRows256, x + step * 4, ldx,
                  left < kStepsPerWidening ? left : kStepsPerWidening, acc);
    }
  }
};

}  // namespace

void TernaryGemmManyAvx2(const TernaryGemmArgs& args, const GemmRange& range, uint8_t* buffer,
                         int64_t panels) {
  TernaryMany256<Sums>::Run(args, range, buffer, panels);
}

}  // namespace tern::kernels
