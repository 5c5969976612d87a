// BitLinear's hand-written CUDA kernels (kernels/, by the plug-in libtern_kernels_cuda.so) on
// libtorch's tensors, with the bits of the CPU's. device_neutral.h calls them where a tensor is a
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

 private:
  const kernels::DeviceKernels& table_;
};

}  // namespace tern::quant
