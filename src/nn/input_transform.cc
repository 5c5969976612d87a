// See input_transform.h.
#include "nn/input_transform.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/lerp.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/round_inputs/round_inputs.h"
#include "nn/straight_through.h"
#include "quant/device_neutral_formats.h"
#include "quant/hadamard.h"
#include "quant/int4_rows.h"
#include "quant/torch_parallel.h"

namespace tern::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RotateFunction : torch::autograd::Function<RotateFunction> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& x_MK) {
    return quant::Hadamard(x_MK.contiguous());
  }
  static variable_list backward(AutogradContext*, variable_list grads) {
    return {quant::Hadamard(grads[0].contiguous())};  // H is symmetric
  }
};

// What a file of `codes` lets every program compute with.
at::Tensor RoundAsFile(const at::Tensor& x_MK, InputCodes codes) {
  if (!x_MK.is_cpu()) return quant::neutral::RoundInputs(x_MK, codes == InputCodes::kFp8Dynamic);
  const at::Tensor out_MK = at::empty_like(x_MK);
  kernels::RoundInputsArgs args;
  args.x = x_MK.const_data_ptr<float>();
  args.out = out_MK.mutable_data_ptr<float>();
  args.m = x_MK.size(0);
  args.k = x_MK.size(1);
  args.fp8 = codes == InputCodes::kFp8Dynamic;
  kernels::RoundInputs(args, quant::TorchParallel());
  return out_MK;
}

at::Tensor Rounded(const at::Tensor& x_MK, InputCodes codes) {
  const bool dynamic = codes == InputCodes::kInt8Dynamic || codes == InputCodes::kFp8Dynamic;
  return dynamic ? RoundAsFile(x_MK, codes) : quant::Dequantize(EncodeInputs(x_MK, codes));
}

}  // namespace

quant::Int8Rows EncodeInputs(const at::Tensor& x_MK, InputCodes codes) {
  switch (codes) {
    case InputCodes::kNone:
    case InputCodes::kInt8:
      return quant::QuantizeRows(x_MK);
    case InputCodes::kInt4Absmean:
      return quant::QuantizeRowsInt4(x_MK, quant::Int4Scale::kAbsmean);
    case InputCodes::kInt4Absmax:
      return quant::QuantizeRowsInt4(x_MK, quant::Int4Scale::kAbsmax);
    case InputCodes::kInt8Dynamic:
    case InputCodes::kFp8Dynamic:
      break;
  }
  throw BugError("MatchRules lets no such inputs of a BitLinear through");
}

at::Tensor Rotate(const at::Tensor& x_MK) { return RotateFunction::apply(x_MK); }

at::Tensor TransformInputs(const at::Tensor& x_MK, const InputTransform& transform, double share) {
  const at::Tensor rotated_MK = transform.hadamard ? Rotate(x_MK) : x_MK;
  if (transform.codes == InputCodes::kNone) return rotated_MK;
  const at::Tensor plain_MK = rotated_MK.detach().contiguous();
  const at::Tensor quantized_MK = Rounded(plain_MK, transform.codes);
  return StraightThrough(rotated_MK,
                         share < 1 ? at::lerp(plain_MK, quantized_MK, share) : quantized_MK);
}

}  // namespace tern::nn
