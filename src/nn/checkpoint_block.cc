// See checkpoint_block.h.
#include "nn/checkpoint_block.h"

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace tern::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The context stores only IValues; this carries the block inside one.
struct BlockHolder : torch::CustomClassHolder {
  explicit BlockHolder(BlockFunction f) : function(std::move(f)) {}
  BlockFunction function;
};

struct CheckpointFunction : torch::autograd::Function<CheckpointFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const BlockFunction& block) {
    ctx->save_for_backward({x});
    ctx->saved_data["block"] = c10::IValue::make_capsule(c10::make_intrusive<BlockHolder>(block));
    return block(x, /*recompute=*/false);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto capsule = ctx->saved_data["block"].toCapsule();
    const BlockFunction& block = static_cast<BlockHolder*>(capsule.get())->function;
    const at::Tensor x = ctx->get_saved_variables()[0].detach().requires_grad_(true);
    at::Tensor y;
    {
      const at::AutoGradMode record(true);
      y = block(x, /*recompute=*/true);
    }
    torch::autograd::backward({y}, {grads[0]});
    return {x.grad(), at::Tensor()};
  }
};

}  // namespace

at::Tensor CheckpointBlock(const at::Tensor& x, BlockFunction block) {
  return CheckpointFunction::apply(x, block);
}

}  // namespace tern::nn
