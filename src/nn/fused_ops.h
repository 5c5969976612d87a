// The elementwise parts of a decoder as autograd functions over the fused kernels: each reads its
// inputs once and saves only what backward needs. fp32; formulas in the kernels' folders
// (kernels/rms_norm, rope, gated_ffn). Not on the CPU, device_neutral.h does it.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "arch/model_config.h"

namespace tern::nn {

// y = x / sqrt(mean(x^2) + eps) * gain over the last axis (Zhang & Sennrich, arXiv 1910.07467). x:
// [..., D], gain: [D].
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& gain_D, float eps);

// Tables of cos and sin of position * theta^(-2i/E) / factors[i], fp32 from double, [positions,
// E/2]. Empty factors: all 1.
struct RopeTables {
  at::Tensor cos_TE2, sin_TE2;
};
RopeTables MakeRopeTables(int64_t positions, int64_t head_dim, double theta,
                          const std::vector<double>& factors = {});

// Rotary position embedding (arXiv 2104.09864), halves rotated: pairs (i, i + E/2). x: [M, H, E];
// positions_M: int32, below the tables' length. Backward is the rotation by the negative angle.
at::Tensor Rope(const at::Tensor& x_MHE, const at::Tensor& positions_M, const RopeTables& tables);

// act(gate) * up, for SiLU and squared ReLU. [M, F].
at::Tensor GatedActivation(const at::Tensor& gate_MF, const at::Tensor& up_MF,
                           Activation activation);

}  // namespace tern::nn
