// Linear layers of the engine: one input, one or more matrices. A BitLinear input is quantized once
// for all of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "engine/model_weights.h"

namespace tern::engine {

// x: [m, k] fp32. Returns one [m, n_i] for each matrix. Ternary matrices follow `rule`; dense ones
// accumulate in fp32.
std::vector<std::vector<float>> MultiplyAll(const std::vector<float>& x, int64_t m,
                                            const std::vector<const LinearMatrix*>& matrices,
                                            ActivationRule rule, const ParallelFor& parallel);

// y[m, n] = x w^T in fp32, sums in a fixed order of 16 partial sums.
std::vector<float> MultiplyDense(const float* x, int64_t m, const DenseMatrix& w,
                                 const ParallelFor& parallel);

}  // namespace tern::engine
