// See precision.h.
#include "nn/precision.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/common/isa.h"

namespace tern::nn {
namespace {

// a_MK b_KN in fp32. oneDNN's product (the op libtorch's own compiler emits for linear layers)
// is 1.05 (Zen 4) to 2.4 times (Zen 5) as fast as the sgemm behind at::mm where MKL takes its path
// for processors that are not Intel's, and as fast elsewhere; it wants a's rows one after the
// other, and takes a loop that is a hundred times slower where neither b's rows nor its columns
// are.
at::Tensor Fp32Product(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  using Linear = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                            std::string_view, c10::List<std::optional<at::Scalar>>,
                            std::optional<std::string_view>);
  static const auto linear = c10::Dispatcher::singleton().findOp({"mkldnn::_linear_pointwise", ""});
  if (!linear || !a_MK.device().is_cpu() || !a_MK.is_contiguous()) return at::mm(a_MK, b_KN);
  const bool dense = b_KN.is_contiguous() || b_KN.t().is_contiguous();
  return linear->typed<Linear>().call(a_MK, (dense ? b_KN : b_KN.contiguous()).t(),
                                      /*bias=*/std::nullopt, "none",
                                      c10::List<std::optional<at::Scalar>>(), "");
}

struct DenseLinearFunction : torch::autograd::Function<DenseLinearFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_MK,
                            const at::Tensor& w_NK, int64_t compute) {
    ctx->save_for_backward({x_MK, w_NK});
    ctx->saved_data["compute"] = compute;
    return MatMul(x_MK, w_NK.t(), static_cast<ComputeType>(compute));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto compute = static_cast<ComputeType>(ctx->saved_data["compute"].toInt());
    const at::Tensor& dy_MN = grads[0];
    return {ctx->needs_input_grad(0) ? MatMul(dy_MN, saved[1], compute) : at::Tensor(),
            ctx->needs_input_grad(1) ? MatMul(dy_MN.t(), saved[0], compute) : at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

bool HasNativeBf16(const at::Device& device) {
  if (!device.is_cpu()) return true;
#if defined(__x86_64__)
  // TERN_ISA below avx512 switches it off, so that tests reach both ways on one machine.
  return kernels::ActiveIsa() == kernels::Isa::kAvx512 && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

at::Tensor RoundTo(const at::Tensor& x, ComputeType compute) {
  switch (compute) {
    case ComputeType::kFp32:
      return x;
    case ComputeType::kBf16:
      return x.to(at::kBFloat16).to(at::kFloat);
    case ComputeType::kFp16:
      return x.to(at::kHalf).to(at::kFloat);
  }
  __builtin_unreachable();
}

at::Tensor MatMul(const at::Tensor& a_MK, const at::Tensor& b_KN, ComputeType compute) {
  if (compute == ComputeType::kBf16 && HasNativeBf16(a_MK.device())) {
    return at::mm(a_MK.to(at::kBFloat16), b_KN.to(at::kBFloat16)).to(at::kFloat);
  }
  return Fp32Product(RoundTo(a_MK, compute), RoundTo(b_KN, compute));
}

void AddMatMul(const at::Tensor& a_MK, const at::Tensor& b_KN, ComputeType compute,
               at::Tensor* c_MN) {
  if (compute == ComputeType::kBf16 && HasNativeBf16(a_MK.device())) {
    c_MN->add_(at::mm(a_MK.to(at::kBFloat16), b_KN.to(at::kBFloat16)));
    return;
  }
  c_MN->addmm_(RoundTo(a_MK, compute), RoundTo(b_KN, compute));
}

at::Tensor DenseLinear(const at::Tensor& x_MK, const at::Tensor& w_NK, ComputeType compute) {
  return DenseLinearFunction::apply(x_MK, w_NK, static_cast<int64_t>(compute));
}

std::string_view ToString(ComputeType compute) {
  switch (compute) {
    case ComputeType::kFp32:
      return "fp32";
    case ComputeType::kBf16:
      return "bf16";
    case ComputeType::kFp16:
      return "fp16";
  }
  __builtin_unreachable();
}

}  // namespace tern::nn
