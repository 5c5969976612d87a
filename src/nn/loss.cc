// See loss.h.
#include "nn/loss.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "nn/device_neutral.h"
#include "quant/torch_parallel.h"

namespace tern::nn {

double CrossEntropyRows(at::Tensor logits_CV, const at::Tensor& targets_C, double grad_factor) {
  if (!logits_CV.device().is_cpu())
    return neutral::CrossEntropyRows(logits_CV, targets_C, grad_factor);
  const int64_t rows = logits_CV.size(0), vocabulary = logits_CV.size(1);
  at::Tensor loss_C = at::empty({rows}, at::kFloat);
  kernels::CrossEntropy(logits_CV.mutable_data_ptr<float>(), targets_C.const_data_ptr<int32_t>(),
                        rows, vocabulary, vocabulary, static_cast<float>(grad_factor),
                        loss_C.mutable_data_ptr<float>(), quant::TorchParallel());
  double sum = 0;  // Left to right: independent of threads.
  const float* loss = loss_C.const_data_ptr<float>();
  for (int64_t c = 0; c < rows; ++c) sum += loss[c];
  return sum;
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& h_MD, const at::Tensor& head_VD,
                            const at::Tensor& targets_M, const LossOptions& options,
                            bool wants_gradient) {
    const int64_t rows = h_MD.size(0);
    const double factor = options.grad_scale / options.count;
    at::Tensor dh_MD, dhead_VD;
    if (wants_gradient) {
      dh_MD = at::empty_like(h_MD);
      dhead_VD = at::zeros_like(head_VD);
    }
    double sum = 0;
    for (int64_t begin = 0; begin < rows; begin += options.chunk_rows) {
      const int64_t count = std::min(options.chunk_rows, rows - begin);
      const at::Tensor h_CD = h_MD.narrow(0, begin, count);
      at::Tensor logits_CV = MatMul(h_CD, head_VD.t(), options.compute);
      sum += CrossEntropyRows(logits_CV, targets_M.narrow(0, begin, count), factor);
      if (!wants_gradient) continue;
      dh_MD.narrow(0, begin, count).copy_(MatMul(logits_CV, head_VD, options.compute));
      AddMatMul(logits_CV.t(), h_CD, options.compute, &dhead_VD);
    }
    if (wants_gradient) ctx->save_for_backward({dh_MD, dhead_VD});
    return at::scalar_tensor(sum / options.count, at::kDouble);
  }

  static variable_list backward(AutogradContext* ctx,
                                variable_list /*grads: 1, the scale is in options*/) {
    const variable_list saved = ctx->get_saved_variables();
    return {saved[0], saved[1], at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor ChunkedCrossEntropy(const at::Tensor& h_MD, const at::Tensor& head_VD,
                               const at::Tensor& targets_M, const LossOptions& options) {
  TERN_CHECK(options.count > 0 && options.chunk_rows > 0, "count ", options.count, ", rows ",
             options.chunk_rows);
  const bool wants_gradient =
      at::GradMode::is_enabled() && (h_MD.requires_grad() || head_VD.requires_grad());
  return CrossEntropyFunction::apply(h_MD.contiguous(), head_VD, targets_M, options,
                                     wants_gradient);
}

}  // namespace tern::nn
