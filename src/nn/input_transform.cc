// See input_transform.h.
#include "nn/input_transform.h"

#include <ATen/ops/lerp.h>
#include <torch/csrc/autograd/custom_function.h>

#include "nn/straight_through.h"
#include "quant/hadamard.h"
#include "quant/int4_rows.h"

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
  }
  __builtin_unreachable();
}

at::Tensor Rotate(const at::Tensor& x_MK) { return RotateFunction::apply(x_MK); }

at::Tensor TransformInputs(const at::Tensor& x_MK, const InputTransform& transform, double share) {
  const at::Tensor rotated_MK = transform.hadamard ? Rotate(x_MK) : x_MK;
  if (transform.codes == InputCodes::kNone) return rotated_MK;
  const at::Tensor plain_MK = rotated_MK.detach().contiguous();
  const at::Tensor quantized_MK = quant::Dequantize(EncodeInputs(plain_MK, transform.codes));
  return StraightThrough(rotated_MK,
                         share < 1 ? at::lerp(plain_MK, quantized_MK, share) : quantized_MK);
}

}  // namespace tern::nn
