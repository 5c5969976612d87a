// Cuts the E4M3 casts for the threads and picks the instruction set.
#include "kernels/fp8/fp8.h"

#include "kernels/common/versions.h"
#include "kernels/fp8/fp8_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrain = 16384;  // Values: a few us of work; less does not pay for a wake-up.

}  // namespace

void Fp32ToE4M3(const float* x, int64_t count, uint8_t* out, const ParallelFor& parallel) {
  parallel(count, kGrain, [=](int64_t begin, int64_t end) {
    TERN_ACTIVE(Fp32ToE4M3Range)(x + begin, end - begin, out + begin);
  });
}

void E4M3ToFp32(const uint8_t* x, int64_t count, float* out, const ParallelFor& parallel) {
  parallel(count, kGrain, [=](int64_t begin, int64_t end) {
    TERN_ACTIVE(E4M3ToFp32Range)(x + begin, end - begin, out + begin);
  });
}

}  // namespace tern::kernels
