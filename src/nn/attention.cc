// See attention.h.
#include "nn/attention.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

namespace tern::nn {
namespace {

// Rounding with a straight-through gradient: the derivative of rounding is 0 almost everywhere and
// useless.
struct RoundFunction : torch::autograd::Function<RoundFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& x,
                            int64_t compute) {
    return RoundTo(x, static_cast<ComputeType>(compute));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list grads) {
    return {grads[0], at::Tensor()};
  }
};

at::Tensor Rounded(const at::Tensor& x, ComputeType compute) {
  if (compute == ComputeType::kFp32) return x;
  if (x.device().is_cpu()) return RoundFunction::apply(x, static_cast<int64_t>(compute));
  return x.to(compute == ComputeType::kBf16 ? at::kBFloat16 : at::kHalf);
}

at::Tensor Operand(const at::Tensor& x_BTHE, ComputeType compute) {
  return Rounded(x_BTHE, compute).transpose(1, 2);
}

}  // namespace

at::Tensor CausalAttention(const at::Tensor& q_BTHE, const at::Tensor& k_BTJE,
                           const at::Tensor& v_BTJE, const at::Tensor& document_mask_B1TT,
                           ComputeType compute) {
  const bool masked = document_mask_B1TT.defined();
  const bool grouped = q_BTHE.size(2) != k_BTJE.size(2);
  const at::Tensor out_BHTE = at::scaled_dot_product_attention(
      Operand(q_BTHE, compute), Operand(k_BTJE, compute), Operand(v_BTJE, compute),
      masked ? std::optional<at::Tensor>(document_mask_B1TT) : std::nullopt, /*dropout_p=*/0.0,
      /*is_causal=*/!masked, /*scale=*/std::nullopt, grouped);
  return out_BHTE.to(at::kFloat)
      .transpose(1, 2)
      .reshape({q_BTHE.size(0), q_BTHE.size(1), q_BTHE.size(2) * q_BTHE.size(3)});
}

at::Tensor DocumentMask(const at::Tensor& document_ids_BT) {
  const int64_t tokens = document_ids_BT.size(1);
  const at::Tensor same_BTT = document_ids_BT.unsqueeze(2) == document_ids_BT.unsqueeze(1);
  const at::Tensor causal_TT = at::ones({tokens, tokens}, same_BTT.options()).tril();
  return (same_BTT & causal_TT).unsqueeze(1);
}

}  // namespace tern::nn
