// The decoder's fused operations in libtorch's own, for tensors on any device: what fused_ops.h and
// loss.h call where the memory is not the CPU's. Gradients are libtorch's autograd's. Rope has the
// bits of the CPU kernel; the others add in another order, or take another exp: equal within fp32
// rounding (tests/nn/device_neutral_test.cc derives the bounds).
#pragma once

#include <ATen/core/Tensor.h>

#include "arch/model_config.h"

namespace tern::nn::neutral {

// As their namesakes in fused_ops.h; tables: [positions, E/2].
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& gain_D, float eps);
at::Tensor Rope(const at::Tensor& x_MHE, const at::Tensor& positions_M, const at::Tensor& cos_TE2,
                const at::Tensor& sin_TE2);
at::Tensor GatedActivation(const at::Tensor& gate_MF, const at::Tensor& up_MF,
                           Activation activation);

// As its namesake in loss.h: overwrites the logits.
double CrossEntropyRows(at::Tensor logits_CV, const at::Tensor& targets_C, double grad_factor);

}  // namespace tern::nn::neutral
