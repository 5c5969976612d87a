// Per-token int8 quantization of activations (BitNet b1.58, arXiv 2402.17764): gamma = max(amax|x|,
// 1e-5), s = 127/gamma, q = clamp(rint(x*s), -128, 127), round half to even. Also the sum of each
// quantized row, which the ternary kernels need because their codes are weight + 1. Bit-equal on
// every instruction set (max and integer sums do not depend on order).
#pragma once

#include <cstdint>

namespace tern::kernels {

inline constexpr float kActivationFloor =
    1e-5f;  // gamma of an all-zero token; as transformers' ActQuant.

// x: [m, ldx] fp32, k columns used. q: [m, ldq] int8 with ldq >= T2PaddedK(k); columns
// k..T2PaddedK(k) become 0. gamma: [m]. sum: [m]. Rows [row_begin, row_end) only. REQUIRES: x
// finite (NaN gives unspecified codes).
void AbsmaxQuantize(const float* x, int64_t row_begin, int64_t row_end, int64_t k, int64_t ldx,
                    int8_t* q, int64_t ldq, float* gamma, int32_t* sum);

// out[m, k] = gamma[m]/127 * q[m, k] as fp32 (the activations that the backward pass uses).
void DequantizeRows(const int8_t* q, int64_t row_begin, int64_t row_end, int64_t k, int64_t ldq,
                    const float* gamma, float* out, int64_t ldo);

}  // namespace tern::kernels
