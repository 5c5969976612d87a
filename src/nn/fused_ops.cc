// See fused_ops.h.
#include "nn/fused_ops.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/gated_ffn/gated_ffn.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "nn/device_neutral.h"
#include "quant/torch_parallel.h"

namespace tern::nn {
namespace {

using quant::TorchParallel;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, const at::Tensor& gain_D,
                            double eps) {
    const at::Tensor x = x_in.contiguous();
    const int64_t d = gain_D.numel(), rows = x.numel() / d;
    at::Tensor y = at::empty_like(x), inverse_rms_M = at::empty({rows}, at::kFloat);
    kernels::RmsNormForward(x.const_data_ptr<float>(), gain_D.const_data_ptr<float>(), rows, d,
                            static_cast<float>(eps), y.mutable_data_ptr<float>(),
                            inverse_rms_M.mutable_data_ptr<float>(), TorchParallel());
    ctx->save_for_backward({x, gain_D, inverse_rms_M});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &gain_D = saved[1], dy = grads[0].contiguous();
    at::Tensor dx = at::empty_like(x), dgain_D = at::empty_like(gain_D);
    kernels::RmsNormBackward(dy.const_data_ptr<float>(), x.const_data_ptr<float>(),
                             gain_D.const_data_ptr<float>(), saved[2].const_data_ptr<float>(),
                             saved[2].numel(), gain_D.numel(), dx.mutable_data_ptr<float>(),
                             dgain_D.mutable_data_ptr<float>(), TorchParallel());
    return {dx, dgain_D, at::Tensor()};
  }
};

// A copy of x rotated by the positions' angles, or back.
at::Tensor Rotate(const at::Tensor& x_MHE, const at::Tensor& positions_M, const at::Tensor& cos_TE2,
                  const at::Tensor& sin_TE2, kernels::RopeDirection direction) {
  at::Tensor y_MHE = x_MHE.clone(at::MemoryFormat::Contiguous);
  const int64_t heads = y_MHE.size(1), head_dim = y_MHE.size(2);
  kernels::Rope(y_MHE.mutable_data_ptr<float>(), y_MHE.size(0), heads, head_dim, heads * head_dim,
                positions_M.const_data_ptr<int32_t>(), cos_TE2.const_data_ptr<float>(),
                sin_TE2.const_data_ptr<float>(), direction, TorchParallel());
  return y_MHE;
}

struct RopeFunction : torch::autograd::Function<RopeFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_MHE,
                            const at::Tensor& positions_M, const at::Tensor& cos_TE2,
                            const at::Tensor& sin_TE2) {
    ctx->save_for_backward({positions_M, cos_TE2, sin_TE2});
    return Rotate(x_MHE, positions_M, cos_TE2, sin_TE2, kernels::RopeDirection::kForward);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    return {Rotate(grads[0], saved[0], saved[1], saved[2], kernels::RopeDirection::kInverse),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct GatedActivationFunction : torch::autograd::Function<GatedActivationFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_in,
                            const at::Tensor& up_in, int64_t act) {
    const at::Tensor gate_MF = gate_in.contiguous(), up_MF = up_in.contiguous();
    at::Tensor h_MF = at::empty_like(gate_MF);
    kernels::GatedFfnForward(static_cast<kernels::GateActivation>(act),
                             gate_MF.const_data_ptr<float>(), up_MF.const_data_ptr<float>(),
                             gate_MF.numel(), h_MF.mutable_data_ptr<float>(), TorchParallel());
    ctx->save_for_backward({gate_MF, up_MF});
    ctx->saved_data["activation"] = act;
    return h_MF;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &gate_MF = saved[0], &up_MF = saved[1], dh_MF = grads[0].contiguous();
    const auto act = static_cast<kernels::GateActivation>(ctx->saved_data["activation"].toInt());
    at::Tensor dgate_MF = at::empty_like(gate_MF), dup_MF = at::empty_like(up_MF);
    kernels::GatedFfnBackward(act, dh_MF.const_data_ptr<float>(), gate_MF.const_data_ptr<float>(),
                              up_MF.const_data_ptr<float>(), gate_MF.numel(),
                              dgate_MF.mutable_data_ptr<float>(), dup_MF.mutable_data_ptr<float>(),
                              TorchParallel());
    return {dgate_MF, dup_MF, at::Tensor()};
  }
};

kernels::GateActivation KernelActivation(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return kernels::GateActivation::kSilu;
    case Activation::kRelu2:
      return kernels::GateActivation::kSquaredRelu;
  }
  __builtin_unreachable();
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& gain_D, float eps) {
  TERN_CHECK(x.size(-1) == gain_D.numel(), "last axis of ", x.sizes(), " and gain of ",
             gain_D.numel());
  if (!x.device().is_cpu()) return neutral::RmsNorm(x, gain_D, eps);
  return RmsNormFunction::apply(x, gain_D, static_cast<double>(eps));
}

RopeTables MakeRopeTables(int64_t positions, int64_t head_dim, double theta,
                          const std::vector<double>& factors) {
  RopeTables tables{at::empty({positions, head_dim / 2}, at::kFloat),
                    at::empty({positions, head_dim / 2}, at::kFloat)};
  kernels::RopeTable(positions, head_dim, theta, factors, tables.cos_TE2.mutable_data_ptr<float>(),
                     tables.sin_TE2.mutable_data_ptr<float>());
  return tables;
}

at::Tensor Rope(const at::Tensor& x_MHE, const at::Tensor& positions_M, const RopeTables& tables) {
  if (!x_MHE.device().is_cpu())
    return neutral::Rope(x_MHE, positions_M, tables.cos_TE2, tables.sin_TE2);
  return RopeFunction::apply(x_MHE, positions_M, tables.cos_TE2, tables.sin_TE2);
}

at::Tensor GatedActivation(const at::Tensor& gate_MF, const at::Tensor& up_MF,
                           Activation activation) {
  if (!gate_MF.device().is_cpu()) return neutral::GatedActivation(gate_MF, up_MF, activation);
  return GatedActivationFunction::apply(gate_MF, up_MF,
                                        static_cast<int64_t>(KernelActivation(activation)));
}

}  // namespace tern::nn
