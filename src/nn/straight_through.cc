// See straight_through.h.
#include "nn/straight_through.h"

#include <torch/csrc/autograd/custom_function.h>

namespace tern::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// No inputs of the function, so that they may be undefined and get no gradient.
struct Replacement {
  at::Tensor value, inside;
};

struct StraightThroughFunction : torch::autograd::Function<StraightThroughFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& /*x*/,
                            const Replacement& replacement) {
    ctx->save_for_backward({replacement.inside});
    return replacement.value.detach();
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor inside = ctx->get_saved_variables()[0];
    return {inside.defined() ? grads[0] * inside : grads[0], at::Tensor()};
  }
};

}  // namespace

at::Tensor StraightThrough(const at::Tensor& x, const at::Tensor& value, const at::Tensor& inside) {
  return StraightThroughFunction::apply(x, Replacement{value, inside});
}

}  // namespace tern::nn
