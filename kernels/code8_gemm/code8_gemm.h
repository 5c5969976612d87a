// As CodeGemm (kernels/code_gemm) with 8-bit activations (int8_tokens.h), a user's choice: half of
// the multiplications, and the error of one byte. Q8_0 as well, whose codes are bytes + 128.
//
// With w = s code + t and q, scale of 32 activations, in fp32, in this order, block after block of
// 256:
//   types with one scale for 32 weights (all but Q2_K, Q3_K, Q6_K): lane j (0..7) is of the 32 j
//     t = m or -(dmin min): adds t * scaled_sum, with one fused multiply-add; where t is -zero s
//     not
//     adds (s * scale) * float(sum of (code - zero) q), with one; s = d, or d sc; zero is 0 where
//     there is a t. The sum is an exact integer: below 2^20.
//   types with one for 16: the same with 16 lanes, group g at LaneOf16(g)
// At the end lanes l and l + 8 are added (of 16), then l and l + 4, l and l + 2, l and l + 1.
// So a result has the same bits for one token and for many, on any number of threads and every
// instruction set.
#pragma once

#include <cstdint>

#include "base/parallel.h"
#include "kernels/code8_gemm/int8_tokens.h"
#include "kernels/code_gemm/code_gemm.h"

namespace tern::kernels {

struct Code8GemmArgs {
  CodeType type = CodeType::kQ4_0;
  const uint8_t* w = nullptr;  // n rows of row_bytes
  int64_t row_bytes = 0;
  int64_t paired_head_dim = 0;   // As in float_gemm.h
  const Int8Block* x = nullptr;  // [m, Int8Blocks(k)]
  float* y = nullptr;            // [m, n], row stride ldy
  int64_t m = 0, n = 0, k = 0, ldy = 0;
};

// REQUIRES: k a multiple of the type's block (32 or 256).
void Code8Gemm(const Code8GemmArgs& args, const ParallelFor& parallel);

}  // namespace tern::kernels
