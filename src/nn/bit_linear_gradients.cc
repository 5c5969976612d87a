// See bit_linear_gradients.h.
#include "nn/bit_linear_gradients.h"

#include <ATen/ops/mm.h>

namespace tern::nn {

at::Tensor BitLinearGradients::OfMatrix(const at::Tensor& dy_MN, const quant::TernaryWeight& w,
                                        at::Tensor* dx_MK, bool wants_dw) {
  if (gpu_ == nullptr) {
    if (dx_MK != nullptr) AddInputGradient(dy_MN, w, dx_MK);
    return wants_dw ? WeightGradient(dy_MN) : at::Tensor();
  }
  if (dx_MK == nullptr && !wants_dw) return {};
  const auto rounded = gpu_->RoundGradient(dy_MN, x_.gamma_M, dx_MK != nullptr, wants_dw);
  if (dx_MK != nullptr) gpu_->AddInputGradient(rounded, w, dx_MK);
  return wants_dw ? gpu_->WeightGradient(rounded, x_) : at::Tensor();
}

// The codes are exact in every compute type.
void BitLinearGradients::AddInputGradient(const at::Tensor& dy_MN, const quant::TernaryWeight& w,
                                          at::Tensor* dx_MK) const {
  at::Tensor part_MK = MatMul(dy_MN, quant::Dequantize(w, 1.0f), compute_);
  if (dx_MK->defined()) {
    dx_MK->add_(part_MK, w.beta);
  } else {
    *dx_MK = part_MK.mul_(w.beta);
  }
}

void BitLinearGradients::ConvertInputs() {
  if (compute_ == ComputeType::kFp32) {
    x_MK_ = quant::Dequantize(x_);
    return;
  }
  const bool native = compute_ == ComputeType::kBf16 && HasNativeBf16(x_.q_MK.device());
  x_MK_ = x_.q_MK.narrow(1, 0, x_.k).to(native ? at::kBFloat16 : at::kFloat);
  row_scale_M1_ = x_.gamma_M.div(127.0f).unsqueeze(1);
}

// In BF16 the row scale is folded into dY before rounding, because xq is exact in BF16 (8
// significant bits) and would not be after scaling.
at::Tensor BitLinearGradients::WeightGradient(const at::Tensor& dy_MN) {
  if (!x_MK_.defined()) ConvertInputs();
  if (compute_ == ComputeType::kFp32) return at::mm(dy_MN.t(), x_MK_);
  const at::Tensor scaled_MN = dy_MN * row_scale_M1_;
  if (x_MK_.scalar_type() == at::kBFloat16)
    return at::mm(scaled_MN.to(at::kBFloat16).t(), x_MK_).to(at::kFloat);
  return at::mm(RoundTo(scaled_MN, compute_).t(), x_MK_);
}

}  // namespace tern::nn
