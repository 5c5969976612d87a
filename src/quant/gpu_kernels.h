// BitLinear's hand-written CUDA kernels (kernels/, by the plug-in libtern_kernels_cuda.so) on
// libtorch's tensors: the forward pass with the bits of the CPU's, for device_neutral.h, and the
// products of the BF16 backward pass, for src/nn/bit_linear_gradients.h. Called where a tensor is a
// GPU's and the plug-in is there. Work is queued on the default stream, which is libtorch's current
// one as long as nobody changes that.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/device/device_api.h"
#include "quant/ternary.h"

namespace tern::quant {

class GpuKernels {
 public:
  // For tensors in the memory that the table's launchers work on.
  explicit GpuKernels(const kernels::DeviceKernels& table) : table_(table) {}

  // Those for this tensor's device; null for one that is no GPU's, and without the plug-in, which
  // is said once.
  static const GpuKernels* For(const at::Tensor& tensor);

  // As their namesakes in device_neutral.h. Throw ResourceError with the launcher's words.
  at::Tensor AbsBlockSums(const at::Tensor& w_NK) const;
  TernaryWeight QuantizeTernary(const at::Tensor& w_NK, float beta,
                                const at::Tensor& previous_NC) const;
  Int8Rows QuantizeRows(const at::Tensor& x_MK) const;
  at::Tensor TernaryMatMul(const Int8Rows& x, const TernaryWeight& w) const;

  // The backward pass in BF16 (kernels/ternary_backward/ternary_backward.h has the numbers): dY
  // rounded, C = N up to a multiple of 8; undefined is what was not wanted.
  struct RoundedGradient {
    at::Tensor plain_MC, scaled_MC;  // dY; dY gamma/127
    int64_t n = 0;
  };
  RoundedGradient RoundGradient(const at::Tensor& dy_MN, const at::Tensor& gamma_M, bool plain,
                                bool scaled) const;
  // *dx_MK, or 0 where it is undefined, plus beta (plain Wq).
  void AddInputGradient(const RoundedGradient& dy, const TernaryWeight& w, at::Tensor* dx_MK) const;
  // dW_NK = scaled^T xq.
  at::Tensor WeightGradient(const RoundedGradient& dy, const Int8Rows& x) const;

 private:
  const kernels::DeviceKernels& table_;
};

}  // namespace tern::quant
