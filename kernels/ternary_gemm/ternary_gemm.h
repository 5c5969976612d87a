// y = (int8 activations) x (ternary weights)^T, exactly: acc[m][n] = sum_k xq[m][k] * wq[n][k] in
// int32, then y[m][n] = float(acc) * out_scale[m]. Serves decoding (m = 1), prefill and the
// trainer's forward. Bit-equal to the scalar oracle on every instruction set, because integer sums
// are exact; float(acc) is exact while 127 K < 2^24.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

struct TernaryGemmArgs {
  const uint8_t* w_t2 = nullptr;     // [n, T2RowBytes(k)], see ternary_pack/t2.h
  const int8_t* x = nullptr;         // [m, ldx]; ldx >= T2PaddedK(k), padding columns are 0
  const int32_t* x_sum = nullptr;    // [m] sum of each row of x
  const float* out_scale = nullptr;  // [m] beta * (gamma[m] / 127), computed in fp32 in this order
  float* y = nullptr;                // [m, ldy]
  int64_t m = 0, n = 0, k = 0, ldx = 0, ldy = 0;
};

void TernaryGemm(const TernaryGemmArgs& args, const ParallelFor& parallel);
// The same numbers, one element after the other: the oracle of every other implementation.
void TernaryGemmRef(const TernaryGemmArgs& args);

}  // namespace tern::kernels
