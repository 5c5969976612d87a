// The versions behind rounding_loops.h. For the dispatcher and the tests only.
#pragma once

#include "quant/rounding_loops.h"

namespace tern::quant {

double RoundingErrorRef(const WeightBlock& block, const Grid& grid, float s, float zero);
double RoundingErrorAvx2(const WeightBlock& block, const Grid& grid, float s, float zero);

void SubtractScaledRef(const float* x, float a, int64_t n, float* y);
void SubtractScaledAvx2(const float* x, float a, int64_t n, float* y);

}  // namespace tern::quant
