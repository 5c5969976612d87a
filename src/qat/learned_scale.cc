// See learned_scale.h.
#include "qat/learned_scale.h"

#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "base/error.h"

namespace tern::qat {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kSeqClip = 0.99;  // Of w / scale: keeps both outer levels reachable by rounding

double Qp(const LearnedQuantizer& q) {
  return q.kind == LearnedKind::kLsq ? std::exp2(q.bits - 1) - 1 : 1;
}

// Where u is clipped, and the values there.
struct Limits {
  double low, high;              // Of u
  double low_level, high_level;  // Quantized values there, in units of the scale
};

Limits LimitsOf(const LearnedQuantizer& q) {
  switch (q.kind) {
    case LearnedKind::kLsq:
      return {-std::exp2(q.bits - 1), Qp(q), -std::exp2(q.bits - 1), Qp(q)};
    case LearnedKind::kSeq2:
      return {-kSeqClip, kSeqClip, -0.75, 0.75};
    case LearnedKind::kSeqTernary:
      return {-kSeqClip, kSeqClip, -1, 1};
    case LearnedKind::kSign:
      return {-1, 1, -1, 1};
  }
  __builtin_unreachable();
}

// Levels in units of the scale. The ternary limit level of the gradient is 1 in ParetoQ's code,
// though the level itself is 2/3.
at::Tensor Levels(const LearnedQuantizer& q, const at::Tensor& u_NK) {
  switch (q.kind) {
    case LearnedKind::kLsq:
      return u_NK.round().clamp_(-std::exp2(q.bits - 1), Qp(q));
    case LearnedKind::kSeq2:
      return u_NK.clamp(-kSeqClip, kSeqClip).mul_(2).sub_(0.5).round_().add_(0.5).div_(2);
    case LearnedKind::kSeqTernary:
      return u_NK.clamp(-kSeqClip, kSeqClip).mul_(1.5).round_().div_(1.5);
    case LearnedKind::kSign:
      return u_NK.sign();
  }
  __builtin_unreachable();
}

struct LearnedFunction : torch::autograd::Function<LearnedFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& w_NK,
                            const at::Tensor& scale_N1, const LearnedQuantizer& quantizer) {
    ctx->save_for_backward({w_NK, scale_N1});
    ctx->saved_data["kind"] = static_cast<int64_t>(quantizer.kind);
    ctx->saved_data["bits"] = static_cast<int64_t>(quantizer.bits);
    const at::Tensor a_N1 = UsedScale(quantizer, scale_N1);
    return Levels(quantizer, w_NK / a_N1) * a_N1;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    LearnedQuantizer quantizer;
    quantizer.kind = static_cast<LearnedKind>(ctx->saved_data["kind"].toInt());
    quantizer.bits = static_cast<int>(ctx->saved_data["bits"].toInt());
    const at::Tensor& dy_NK = grads[0];
    const at::Tensor u_NK = saved[0] / UsedScale(quantizer, saved[1]);
    const Limits limits = LimitsOf(quantizer);
    const at::Tensor below_NK = u_NK<limits.low, above_NK = u_NK> limits.high;
    at::Tensor slope_NK = Levels(quantizer, u_NK);
    if (quantizer.kind != LearnedKind::kSign) {
      slope_NK = at::where(below_NK, limits.low_level,
                           at::where(above_NK, limits.high_level, slope_NK - u_NK));
    }
    const double g = 1.0 / std::sqrt(static_cast<double>(u_NK.numel()) * Qp(quantizer));
    const at::Tensor inside_NK = (below_NK | above_NK).logical_not();
    return {dy_NK * inside_NK, (slope_NK * dy_NK).sum(1, /*keepdim=*/true).mul_(g), at::Tensor()};
  }
};

}  // namespace

at::Tensor InitialScale(const LearnedQuantizer& quantizer, const at::Tensor& w_NK, int64_t groups) {
  const at::Tensor size_NGk = w_NK.detach().abs().view({w_NK.size(0), groups, -1});
  const at::Tensor scale_NG = quantizer.kind == LearnedKind::kSign
                                  ? size_NGk.mean(2)
                                  : size_NGk.amax(2).div_(Qp(quantizer));
  return scale_NG.clamp_min(kLeastScale);
}

at::Tensor UsedScale(const LearnedQuantizer& quantizer, const at::Tensor& scale_NG) {
  const at::Tensor a_NG = scale_NG.detach().clamp_min(kLeastScale);
  if (quantizer.kind == LearnedKind::kSeqTernary) return a_NG;
  return a_NG.to(at::kBFloat16).to(a_NG.scalar_type());
}

at::Tensor QuantizeLearned(const LearnedQuantizer& quantizer, const at::Tensor& w_NK,
                           const at::Tensor& scale_NG) {
  TERN_CHECK(w_NK.dim() == 2 && scale_NG.dim() == 2 && scale_NG.size(0) == w_NK.size(0) &&
                 w_NK.size(1) % scale_NG.size(1) == 0,
             "scale ", scale_NG.sizes(), " of ", w_NK.sizes());
  // Groups are rows of a narrower matrix.
  return LearnedFunction::apply(w_NK.reshape({scale_NG.numel(), -1}), scale_NG.reshape({-1, 1}),
                                quantizer)
      .view_as(w_NK);
}

}  // namespace tern::qat
