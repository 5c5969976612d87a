// The implementations behind bf16.h, one an instruction set. For the dispatcher and the tests only.
#pragma once

#include <cstdint>

namespace tern::kernels {

void RoundToBf16Ref(const float* x, int64_t count, float* out);
void RoundToBf16Avx2(const float* x, int64_t count, float* out);
void RoundToBf16Avx512(const float* x, int64_t count, float* out);
void RoundToBf16Neon(const float* x, int64_t count, float* out);

void Fp32ToBf16Ref(const float* x, int64_t count, uint16_t* out);
void Fp32ToBf16Avx2(const float* x, int64_t count, uint16_t* out);
void Fp32ToBf16Avx512(const float* x, int64_t count, uint16_t* out);
void Fp32ToBf16Neon(const float* x, int64_t count, uint16_t* out);

void Bf16ToFp32Ref(const uint16_t* x, int64_t count, float* out);
void Bf16ToFp32Avx2(const uint16_t* x, int64_t count, float* out);
void Bf16ToFp32Avx512(const uint16_t* x, int64_t count, float* out);
void Bf16ToFp32Neon(const uint16_t* x, int64_t count, float* out);

}  // namespace tern::kernels
