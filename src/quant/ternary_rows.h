// Quantizing some rows of a matrix whose other rows are elsewhere (other ranks): the scale is that
// of the whole matrix, by sums of the fixed blocks of its definition (ARCHITECTURE.md). Rows are
// cut at multiples of RowUnit, so that no block lies in two places.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace tern::quant {

// Rows of k elements whose beginning is also the beginning of a block of the scale.
int64_t RowUnit(int64_t k);

// Sums of the blocks in w_NK: fp32, contiguous, some rows [N', K] from a multiple of RowUnit on.
// Only the matrix's last rows may end within a block.
std::vector<float> BlockSums(const at::Tensor& w_NK);
int64_t NumBlocks(int64_t elements);

// beta of a matrix of `count` elements from all its block sums in order.
float ScaleOfSums(const float* sums, int64_t count);

// Codes of the rows w_NK under that scale into t2_NC: uint8 [N', T2RowBytes(K)], contiguous, on
// w's device.
void QuantizeRowsTo(const at::Tensor& w_NK, float beta, at::Tensor t2_NC);

}  // namespace tern::quant
