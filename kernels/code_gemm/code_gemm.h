// Products of activations with matrices whose weights are codes of 2 to 6 bits with a scale and a
// shift for 16 or 32 of them: GGUF's Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K (layouts:
// docs/formats/block_codecs.md), read in place. Integer products of codes with 16-bit activations
// (int16_tokens.h), so the speed is that of reading the weights, and the result that of fp32
// activations to about 2^-16.
//
// With w = s code + t in block b of 256 (s, t: of 16 weights), q and scale of the token, in fp32,
// in this order:
//   s' = (d scale) * sc   (sc the block's small integer; Q4_0 .. Q5_1: d scale)
//   t' = -zero s' (a power of two, exact), or -((dmin scale) * min), or m scale
//   lane l (0..15) adds  t'[l] * sum of the 16 q beside it  and then, for c = 0..3 (of a row's
//   last block: while 64 c is within the row),
//     s'[4 c + l / 4] * float(sum over i of code q at 64 c + 4 l + i, i = 0..3)      exact: below
//     2^24
//   (Q4_K and Q5_K, whose scales are of 32 weights: lane l adds s'[2 l] * 0 for l < 8, and from 8
//   on t'[2 l - 16] * sum of the 32 q beside it, so that scales and minima are one register) each
//   with one fused multiply-add; at the end the lanes are joined as in common/lanes.h.
// So a result has the same bits for one token and for many, on any number of threads and every
// instruction set.
#pragma once

#include <cstdint>

#include "base/parallel.h"
#include "kernels/code_gemm/int16_tokens.h"

namespace tern::kernels {

enum class CodeType { kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ2K, kQ3K, kQ4K, kQ5K, kQ6K };

struct CodeGemmArgs {
  CodeType type = CodeType::kQ4_0;
  const uint8_t* w = nullptr;  // n rows of row_bytes
  int64_t row_bytes = 0;
  int64_t paired_head_dim = 0;    // As in float_gemm.h
  const Int16Block* x = nullptr;  // [m, Int16Blocks(k)]
  float* y = nullptr;             // [m, n], row stride ldy
  int64_t m = 0, n = 0, k = 0, ldy = 0;
};

// REQUIRES: k a multiple of the type's block (32 or 256); not Q8_0, whose products are no exact
// fp32 (float_gemm.h and code8_gemm.h have it).
void CodeGemm(const CodeGemmArgs& args, const ParallelFor& parallel);

}  // namespace tern::kernels
