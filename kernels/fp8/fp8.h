// Casts between fp32 and FP8 E4M3 (OCP 8-bit floating point specification, "E4M3"; the type of
// torch.float8_e4m3fn and of NVIDIA's e4m3): 1 sign, 4 exponent bits with bias 7, 3 fraction bits;
// subnormals in units of 2^-9, largest value 448, no infinity, NaN is 0x7F and 0xFF.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

inline constexpr float kE4M3Max = 448.0f;

// out[i] = the nearest E4M3 to x[i], ties to even, saturating: beyond +-448, also +-Inf, becomes
// +-448; NaN becomes 0x7F; the sign of zero is kept. A format's scale is the caller's to apply.
void Fp32ToE4M3(const float* x, int64_t count, uint8_t* out, const ParallelFor& parallel);
// Exact for all 256 codes; 0x7F and 0xFF become NaN.
void E4M3ToFp32(const uint8_t* x, int64_t count, float* out, const ParallelFor& parallel);

// One value: the oracle of the two above.
uint8_t Fp32ToE4M3Ref(float x);
float E4M3ToFp32Ref(uint8_t code);

}  // namespace tern::kernels
