// The two halves of beta (ternary_quantize.h) for a matrix that no process has as a whole: sums of
// its fixed blocks, and beta from all sums in their order. Together they give TernaryScale's bits.
#pragma once

#include <cstdint>

namespace tern::kernels {

// sums[b] = |w| of block b of kAbsMeanBlock elements (fp32, left to right), for blocks
// [block_begin, block_end) of a matrix of `count` elements; the last block may be shorter. Eight
// independent chains in flight.
void AbsBlockSums(const float* w, int64_t count, int64_t block_begin, int64_t block_end,
                  float* sums);

// beta of `count` > 0 weights from the sums of their blocks, joined left to right in fp64. NaN and
// Inf propagate.
float ScaleOfBlockSums(const float* sums, int64_t blocks, int64_t count);

}  // namespace tern::kernels
