// Rounding between fp32 and bfloat16 (the upper 16 bits of an fp32): to nearest, ties to even. NaN
// stays NaN (its upper payload kept, the quiet bit set), Inf stays Inf, values beyond the largest
// bfloat16 become Inf, subnormals are kept. Integer arithmetic on every instruction set (the
// AVX-512 BF16 instructions flush subnormals), hence bit-equal.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

// out[i] = the nearest bfloat16 to x[i], as fp32. out may be x.
void RoundToBf16(const float* x, int64_t count, float* out, const ParallelFor& parallel);
void Fp32ToBf16(const float* x, int64_t count, uint16_t* out, const ParallelFor& parallel);
void Bf16ToFp32(const uint16_t* x, int64_t count, float* out,
                const ParallelFor& parallel);  // Exact.

}  // namespace tern::kernels
