// The products of BitLinear's backward pass, in the compute type: by libtorch from dequantized
// matrices or, in BF16 on a GPU, by tern's kernels from the 2-bit weights and int8 codes as they
// are. The kernels round dY as libtorch's path does and, other than cuBLAS's BF16 products, do not
// round the sums to BF16.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/precision.h"
#include "quant/gpu_kernels.h"
#include "quant/ternary.h"

namespace tern::nn {

class BitLinearGradients {
 public:
  // Of the matrices that multiplied x, codes of int8 or narrower. gpu: kernels for its device, or
  // null. Both must outlive this.
  BitLinearGradients(const quant::Int8Rows& x, ComputeType compute, const quant::GpuKernels* gpu)
      : x_(x), compute_(compute), gpu_(compute == ComputeType::kBf16 ? gpu : nullptr) {}

  // For dy_MN, fp32 and contiguous, of one matrix: adds beta (dY Wq) to *dx_MK, which may be
  // undefined (as 0), and returns dW_NK = dY^T (gamma/127 xq). dx_MK null, wants_dw false: that one
  // is not made.
  at::Tensor OfMatrix(const at::Tensor& dy_MN, const quant::TernaryWeight& w, at::Tensor* dx_MK,
                      bool wants_dw);

 private:
  void AddInputGradient(const at::Tensor& dy_MN, const quant::TernaryWeight& w,
                        at::Tensor* dx_MK) const;
  at::Tensor WeightGradient(const at::Tensor& dy_MN);
  void ConvertInputs();

  const quant::Int8Rows& x_;
  ComputeType compute_;
  const quant::GpuKernels* gpu_;
  // What libtorch's products take, once the first of them is wanted.
  at::Tensor x_MK_;  // fp32: gamma/127 xq; else xq itself, exact
  at::Tensor row_scale_M1_;
};

}  // namespace tern::nn
