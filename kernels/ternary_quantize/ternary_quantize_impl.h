// The implementations behind ternary_quantize.h, one an instruction set. For the dispatcher and the
// tests only.
#pragma once

#include <cstdint>

#include "kernels/ternary_quantize/block_sums.h"
#include "kernels/ternary_quantize/ternary_quantize.h"

namespace tern::kernels {

// sums[b] = |w| of block b (fp32, left to right), for blocks [block_begin, block_end) of a matrix
// of `count` elements.
void AbsBlockSumsRef(const float* w, int64_t count, int64_t block_begin, int64_t block_end,
                     float* sums);

float TernaryScaleRef(const float* w, int64_t count);

// Rows [row_begin, row_end) of TernaryQuantize; inv_scale = 1 / beta.
TernaryCounts TernaryQuantizeRowsRef(const float* w, int64_t row_begin, int64_t row_end, int64_t k,
                                     float inv_scale, uint8_t* t2, const uint8_t* previous);
TernaryCounts TernaryQuantizeRowsAvx2(const float* w, int64_t row_begin, int64_t row_end, int64_t k,
                                      float inv_scale, uint8_t* t2, const uint8_t* previous);
TernaryCounts TernaryQuantizeRowsAvx512(const float* w, int64_t row_begin, int64_t row_end,
                                        int64_t k, float inv_scale, uint8_t* t2,
                                        const uint8_t* previous);
TernaryCounts TernaryQuantizeRowsNeon(const float* w, int64_t row_begin, int64_t row_end, int64_t k,
                                      float inv_scale, uint8_t* t2, const uint8_t* previous);

}  // namespace tern::kernels
