// The versions of the E4M3 casts, one an instruction set. For the dispatcher and the tests only.
#pragma once

#include <cstdint>

namespace tern::kernels {

void Fp32ToE4M3RangeRef(const float* x, int64_t count, uint8_t* out);
void Fp32ToE4M3RangeAvx2(const float* x, int64_t count, uint8_t* out);
void Fp32ToE4M3RangeAvx512(const float* x, int64_t count, uint8_t* out);
void Fp32ToE4M3RangeNeon(const float* x, int64_t count, uint8_t* out);

void E4M3ToFp32RangeRef(const uint8_t* x, int64_t count, float* out);
void E4M3ToFp32RangeAvx2(const uint8_t* x, int64_t count, float* out);
void E4M3ToFp32RangeAvx512(const uint8_t* x, int64_t count, float* out);
void E4M3ToFp32RangeNeon(const uint8_t* x, int64_t count, float* out);

}  // namespace tern::kernels
