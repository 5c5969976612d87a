// See device_neutral.h.
#include "nn/device_neutral.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>

namespace tern::nn::neutral {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& gain_D, float eps) {
  return at::rms_norm(x, {gain_D.numel()}, gain_D, double{eps});
}

at::Tensor Rope(const at::Tensor& x_MHE, const at::Tensor& positions_M, const at::Tensor& cos_TE2,
                const at::Tensor& sin_TE2) {
  const int64_t half = x_MHE.size(2) / 2;
  const at::Tensor cos_M1E2 = cos_TE2.index_select(0, positions_M).unsqueeze(1),
                   sin_M1E2 = sin_TE2.index_select(0, positions_M).unsqueeze(1);
  const at::Tensor low = x_MHE.narrow(2, 0, half), high = x_MHE.narrow(2, half, half);
  return at::cat({low * cos_M1E2 - high * sin_M1E2, high * cos_M1E2 + low * sin_M1E2}, 2);
}

at::Tensor GatedActivation(const at::Tensor& gate_MF, const at::Tensor& up_MF,
                           Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu(gate_MF) * up_MF;
    case Activation::kRelu2:
      return at::relu(gate_MF).square() * up_MF;
  }
  __builtin_unreachable();
}

double CrossEntropyRows(at::Tensor logits_CV, const at::Tensor& targets_C, double grad_factor) {
  const at::Tensor ignored_C1 = targets_C.lt(0).unsqueeze(1),
                   labels_C1 = targets_C.clamp_min(0).to(at::kLong).unsqueeze(1);
  const at::Tensor log_sum_C1 = at::logsumexp(logits_CV, 1, /*keepdim=*/true);
  const at::Tensor loss_C1 =
      (log_sum_C1 - logits_CV.gather(1, labels_C1)).masked_fill_(ignored_C1, 0.0);
  logits_CV.sub_(log_sum_C1).exp_();
  logits_CV.scatter_add_(1, labels_C1, at::full_like(log_sum_C1, -1.0));
  logits_CV.mul_(grad_factor).masked_fill_(ignored_C1, 0.0);
  return loss_C1.sum(at::kDouble).item<double>();
}

}  // namespace tern::nn::neutral
