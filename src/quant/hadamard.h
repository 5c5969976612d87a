// The normalized Walsh-Hadamard transform of rows: x H, H = Sylvester's matrix / sqrt(size), which
// is symmetric and its own inverse. Sizes are powers of two; a row of another length is cut into
// blocks of the largest power of two that divides it, each transformed alone (the block-diagonal
// form of BitNet v2, arXiv 2504.18415).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tern::quant {

// The size of the blocks of a row of k > 0: the largest power of two that divides k.
int64_t HadamardBlock(int64_t k);

// x_MK: fp32 [M, K], contiguous, on any device. log2(block) levels of fp32 sums and differences,
// then one product with block^-1/2; the same bits on any number of threads and any device.
at::Tensor Hadamard(const at::Tensor& x_MK);

}  // namespace tern::quant
