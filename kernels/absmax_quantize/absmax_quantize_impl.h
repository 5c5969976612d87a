// The implementations behind absmax_quantize.h, one row a call and one an instruction set. For the
// dispatcher and the tests only.
#pragma once

#include <cstdint>

namespace tern::kernels {

// x: [k]. q: [padded_k], columns k.. become 0. Writes *gamma and *sum.
void AbsmaxQuantizeRowRef(const float* x, int64_t k, int64_t padded_k, int8_t* q, float* gamma,
                          int32_t* sum);
void AbsmaxQuantizeRowAvx2(const float* x, int64_t k, int64_t padded_k, int8_t* q, float* gamma,
                           int32_t* sum);
void AbsmaxQuantizeRowAvx512(const float* x, int64_t k, int64_t padded_k, int8_t* q, float* gamma,
                             int32_t* sum);
void AbsmaxQuantizeRowNeon(const float* x, int64_t k, int64_t padded_k, int8_t* q, float* gamma,
                           int32_t* sum);

// out[i] = scale * q[i].
void DequantizeRowRef(const int8_t* q, int64_t k, float scale, float* out);
void DequantizeRowAvx2(const int8_t* q, int64_t k, float scale, float* out);
void DequantizeRowAvx512(const int8_t* q, int64_t k, float scale, float* out);
void DequantizeRowNeon(const int8_t* q, int64_t k, float scale, float* out);

}  // namespace tern::kernels
