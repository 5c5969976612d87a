// Linear layers of the engine: one input, one or more matrices. A BitLinear input is quantized once
// for all of them. Matrices that are not fp32 are decoded a row at a time, never as a whole.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "engine/model_weights.h"

namespace tern::engine {

// x: [m, k] fp32. Returns one [m, n_i] for each matrix. Ternary matrices follow `rule`; the others
// accumulate in fp32 as MultiplyTable does.
std::vector<std::vector<float>> MultiplyAll(const std::vector<float>& x, int64_t m,
                                            const std::vector<const LinearMatrix*>& matrices,
                                            ActivationRule rule, const ParallelFor& parallel);

// y[m, n] = x w^T in fp32 (kernels/block_gemm): the same bits for a matrix in blocks and for its
// decoded values, for one token and for many, on any number of threads and instruction set.
std::vector<float> MultiplyTable(const float* x, int64_t m, const TableMatrix& w,
                                 const ParallelFor& parallel);

// Row `row` of a table as floats, out[k].
void CopyRow(const TableMatrix& w, int64_t row, float* out);

}  // namespace tern::engine
