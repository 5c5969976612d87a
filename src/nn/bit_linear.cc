// See bit_linear.h.
#include "nn/bit_linear.h"

#include <ATen/ops/lerp.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "nn/bit_linear_gradients.h"
#include "nn/straight_through.h"
#include "quant/gpu_kernels.h"

namespace tern::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What the backward pass needs of one forward, as it lies in the context: xq, gamma, sum, then one
// t2 a matrix, then, with a source, one latent a matrix.
constexpr size_t kFirstWeight = 3;

// Of whole rows, or of this rank's columns, the codes that this rank multiplies.
quant::Int8Rows EncodeColumns(const at::Tensor& x, int64_t columns, TensorGroup& group) {
  if (x.size(1) != columns)
    return quant::ColumnsOf(quant::QuantizeRows(x), group.rank() * columns, columns);
  const at::Tensor largest_M1 = x.abs().amax(1, /*keepdim=*/true);
  return quant::QuantizeColumns(x, group.Gather(largest_M1).amax(1));
}

quant::Int8Rows Encode(const at::Tensor& x_in, const at::Tensor& w_NK,
                       const BitLinearOptions& options) {
  const at::Tensor x = x_in.contiguous();
  return options.columns == nullptr ? EncodeInputs(x, options.inputs.codes)
                                    : EncodeColumns(x, w_NK.size(1), *options.columns);
}

at::Tensor Product(const quant::Int8Rows& x, const quant::TernaryWeight& w, TensorGroup* columns) {
  if (columns == nullptr) return quant::TernaryMatMul(x, w);
  TERN_CHECK(quant::SumsAreExact(x.k * columns->size()), x.k, " x ", columns->size(), " inputs");
  const at::Tensor sums_MN = quant::TernarySums(x, w);
  columns->Sum(sums_MN);
  return quant::ScaleSums(sums_MN, x.gamma_M, w.beta);
}

struct BitLinearFunction : torch::autograd::Function<BitLinearFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x_MK, at::TensorList w_NK,
                               const BitLinearOptions& options) {
    const quant::Int8Rows x = Encode(x_MK, w_NK[0], options);
    if (options.observer != nullptr) options.observer->OnActivations(options.group, x);
    variable_list outputs, saved = {x.q_MK, x.gamma_M, x.sum_M};
    std::vector<double> betas;
    for (const at::Tensor& latent : w_NK) {
      const quant::TernaryWeight w = options.source != nullptr ? options.source->Ternary(latent)
                                                               : quant::QuantizeTernary(latent);
      outputs.push_back(Product(x, w, options.columns));
      saved.push_back(w.t2_NC);
      betas.push_back(w.beta);
    }
    if (options.source != nullptr) saved.insert(saved.end(), w_NK.begin(), w_NK.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["source"] = reinterpret_cast<int64_t>(options.source);
    // Null as well where x was this rank's columns: so is its gradient.
    const bool whole = options.columns != nullptr && x_MK.size(1) != x.k;
    ctx->saved_data["columns"] = reinterpret_cast<int64_t>(whole ? options.columns : nullptr);
    ctx->saved_data["betas"] = betas;
    ctx->saved_data["k"] = x.k;
    ctx->saved_data["compute"] = static_cast<int64_t>(options.compute);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    const variable_list saved = ctx->get_saved_variables();
    const auto betas = ctx->saved_data["betas"].toDoubleVector();
    const auto compute = static_cast<ComputeType>(ctx->saved_data["compute"].toInt());
    const quant::Int8Rows x{saved[0], saved[1], saved[2], ctx->saved_data["k"].toInt()};
    auto* source = reinterpret_cast<WeightSource*>(ctx->saved_data["source"].toInt());
    BitLinearGradients gradients(x, compute, quant::GpuKernels::For(x.q_MK));
    at::Tensor dx_MK;
    variable_list grads(1);
    for (size_t i = 0; i < betas.size(); ++i) {
      const at::Tensor dy_MN = dy[i].contiguous();
      quant::TernaryWeight w;
      w.t2_NC = saved[kFirstWeight + i];
      w.beta = static_cast<float>(betas[i]);  // Exact: it came from fp32.
      w.k = x.k;
      // Frozen matrices (adapters), and passes that measure a loss's gradient, want none of dW.
      const at::Tensor dw_NK = gradients.OfMatrix(
          dy_MN, w, ctx->needs_input_grad(0) ? &dx_MK : nullptr, ctx->needs_input_grad(1 + i));
      grads.emplace_back();
      if (!dw_NK.defined()) continue;
      const bool taken =
          source != nullptr && source->TakeGradient(saved[kFirstWeight + betas.size() + i], dw_NK);
      if (!taken) grads.back() = dw_NK;
    }
    auto* columns = reinterpret_cast<TensorGroup*>(ctx->saved_data["columns"].toInt());
    grads[0] = columns == nullptr || !dx_MK.defined() ? dx_MK : columns->Gather(dx_MK);
    grads.emplace_back();  // The options have no gradient.
    return grads;
  }
};

// x + share (q(x) - x), straight through.
at::Tensor Blend(const at::Tensor& x, const at::Tensor& quantized, double share) {
  return StraightThrough(x, at::lerp(x.detach(), quantized, share));
}

std::vector<at::Tensor> BlendedBitLinear(const at::Tensor& x_MK,
                                         const std::vector<at::Tensor>& w_NK,
                                         const BitLinearOptions& options) {
  const quant::Int8Rows x = EncodeInputs(x_MK.detach().contiguous(), options.inputs.codes);
  if (options.observer != nullptr) options.observer->OnActivations(options.group, x);
  const at::Tensor blended_MK = Blend(x_MK, quant::Dequantize(x), options.share);
  std::vector<at::Tensor> y;
  for (const at::Tensor& latent : w_NK) {
    const quant::TernaryWeight w = quant::QuantizeTernary(latent.detach());
    y.push_back(DenseLinear(blended_MK, Blend(latent, quant::Dequantize(w, w.beta), options.share),
                            options.compute));
  }
  return y;
}

}  // namespace

std::vector<at::Tensor> BitLinear(const at::Tensor& x_MK, const std::vector<at::Tensor>& w_NK,
                                  const BitLinearOptions& options) {
  TERN_CHECK(!w_NK.empty(), "no weight matrix");
  TERN_CHECK(options.columns == nullptr || (options.source != nullptr && options.share == 1 &&
                                            options.inputs == InputTransform{}),
             "columns of matrices are multiplied as they are");
  const at::Tensor in_MK = options.inputs.hadamard ? Rotate(x_MK) : x_MK;
  if (options.share < 1) return BlendedBitLinear(in_MK, w_NK, options);
  return BitLinearFunction::apply(in_MK, at::TensorList(w_NK), options);
}

}  // namespace tern::nn
