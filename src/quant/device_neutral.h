// BitLinear's quantizers and integer product in libtorch's own operations, for tensors on any
// device: what ternary.h and ternary_rows.h call where the memory is not the CPU's. The integers,
// scales and outputs have the bits of the CPU kernels: every fp32 operation of the definition
// (ARCHITECTURE.md) is one libtorch operation that rounds once, in the definition's order, and the
// products' sums are exact. On a GPU tern's own kernels of the same numbers are called where their
// plug-in is there (gpu_kernels.h); without it the sums of blocks take 4,096 small operations a
// matrix. Shapes as in ternary.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/ternary.h"

namespace tern::quant::neutral {

// fp32 sums of |w| over blocks of kAbsMeanBlock elements in row-major order, each from left to
// right: [blocks], on w's device.
at::Tensor AbsBlockSums(const at::Tensor& w_NK);

// Ternary codes, int8 [N, K], to T2 bytes [N, T2RowBytes(K)] and back.
at::Tensor PackT2(const at::Tensor& codes_NK);
at::Tensor UnpackT2(const at::Tensor& t2_NC, int64_t k);

// Codes of w_NK (fp32) under a scale, int8 [N, K]. REQUIRES: w_NK is finite.
at::Tensor TernaryCodes(const at::Tensor& w_NK, float beta);

// As their namesakes in ternary.h; beta is that of w_NK.
TernaryWeight QuantizeTernary(const at::Tensor& w_NK, float beta, const at::Tensor& previous_NC);
Int8Rows QuantizeRows(const at::Tensor& x_MK);
at::Tensor TernaryMatMul(const Int8Rows& x, const TernaryWeight& w);
at::Tensor Dequantize(const TernaryWeight& w, float scale);
at::Tensor Dequantize(const Int8Rows& x);

}  // namespace tern::quant::neutral
