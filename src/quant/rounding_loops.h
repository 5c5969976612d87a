// The inner loops where post-training quantization spends its time: the error of rounding a block
// of weights with a given scale, which the range search asks for some 80 times a block, and the row
// update of GPTQ and coordinate descent. One version an instruction set, picked as the kernels' are
// (kernels/common/isa.h); all give the same bits: no fused multiply-adds, one order of sums.
#pragma once

#include <cstdint>

#include "quant/grid.h"

namespace tern::quant {

// rows x columns of a row-major matrix whose rows are `ldw` apart. fp32, finite.
struct WeightBlock {
  const float* w;
  int64_t rows, columns, ldw;
  const float* importance;  // Of the columns; null: all 1
};

// sum over the block of importance * ((RoundToGrid(w / s + zero) - zero) * s - w)^2; `zero` is 0
// for small floats. Each element in fp32. Sums of a row: 8 in fp32, column i to sum i % 8, those
// behind the last multiple of 8 to sum 0; joined in fp64 from the first to the last, row after row.
double RoundingError(const WeightBlock& block, const Grid& grid, float s, float zero);

// y[i] -= a * x[i] for i < n, both operations rounded to fp32. x and y do not overlap.
void SubtractScaled(const float* x, float a, int64_t n, float* y);

}  // namespace tern::quant
