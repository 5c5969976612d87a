// Cuts the conversions for the threads and picks the instruction set.
#include "kernels/bf16/bf16.h"

#include "kernels/bf16/bf16_impl.h"
#include "kernels/common/versions.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrainElements =
    65536;  // Work below which waking a thread costs more than it saves.

void RoundToBf16Range(const float* x, int64_t count, float* out) {
  return TERN_ACTIVE(RoundToBf16)(x, count, out);
}

void Fp32ToBf16Range(const float* x, int64_t count, uint16_t* out) {
  return TERN_ACTIVE(Fp32ToBf16)(x, count, out);
}

void Bf16ToFp32Range(const uint16_t* x, int64_t count, float* out) {
  return TERN_ACTIVE(Bf16ToFp32)(x, count, out);
}

}  // namespace

void RoundToBf16(const float* x, int64_t count, float* out, const ParallelFor& parallel) {
  parallel(count, kGrainElements, [&](int64_t begin, int64_t end) {
    RoundToBf16Range(x + begin, end - begin, out + begin);
  });
}

void Fp32ToBf16(const float* x, int64_t count, uint16_t* out, const ParallelFor& parallel) {
  parallel(count, kGrainElements, [&](int64_t begin, int64_t end) {
    Fp32ToBf16Range(x + begin, end - begin, out + begin);
  });
}

void Bf16ToFp32(const uint16_t* x, int64_t count, float* out, const ParallelFor& parallel) {
  parallel(count, kGrainElements, [&](int64_t begin, int64_t end) {
    Bf16ToFp32Range(x + begin, end - begin, out + begin);
  });
}

}  // namespace tern::kernels
