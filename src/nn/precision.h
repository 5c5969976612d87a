// BF16 and FP16 mixed precision for dense products: operands are rounded to the compute type,
// products accumulate in fp32; parameters, optimizer state, norms, softmax and the loss stay fp32.
// Where the device multiplies BF16 itself (AVX-512 BF16, GPUs) libtorch's BF16 product is called,
// which also rounds its result to BF16; elsewhere the operands are rounded and multiplied in fp32:
// the same products, some 25 times faster there than libtorch's own BF16 path.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

namespace tern::nn {

enum class ComputeType { kFp32, kBf16, kFp16 };

// True when BF16 products run on BF16 instructions for tensors of this device.
bool HasNativeBf16(const at::Device& device);

// The nearest values (half to even) that the compute type can hold, as fp32. kFp32 returns x
// itself.
at::Tensor RoundTo(const at::Tensor& x, ComputeType compute);

// c_MN = a_MK b_KN, fp32 in and out; either operand may be a transposed view.
at::Tensor MatMul(const at::Tensor& a_MK, const at::Tensor& b_KN, ComputeType compute);

// c_MN += a_MK b_KN.
void AddMatMul(const at::Tensor& a_MK, const at::Tensor& b_KN, ComputeType compute,
               at::Tensor* c_MN);

// x_MK w_NK^T with gradients to both: the dense linear layer. dX = dY w, dW = dY^T x in the same
// compute type.
at::Tensor DenseLinear(const at::Tensor& x_MK, const at::Tensor& w_NK, ComputeType compute);

std::string_view ToString(ComputeType compute);

}  // namespace tern::nn
