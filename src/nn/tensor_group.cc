// See tensor_group.h.
#include "nn/tensor_group.h"

#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"

namespace tern::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kGroup = "group";

void Keep(AutogradContext* ctx, TensorGroup* group) {
  ctx->saved_data[kGroup] = reinterpret_cast<int64_t>(group);
}
TensorGroup& Kept(AutogradContext* ctx) {
  return *reinterpret_cast<TensorGroup*>(ctx->saved_data[kGroup].toInt());
}

// A copy, because the gradient may be another function's, too.
at::Tensor Sum(const at::Tensor& x, TensorGroup& group) {
  at::Tensor sum = x.clone(at::MemoryFormat::Contiguous);
  group.Sum(sum);
  return sum;
}

at::Tensor Cut(const at::Tensor& x_MK, const TensorGroup& group) {
  const int64_t k = x_MK.size(1) / group.size();
  TERN_CHECK(k * group.size() == x_MK.size(1), x_MK.sizes(), " among ", group.size());
  return x_MK.narrow(1, group.rank() * k, k).contiguous();
}

struct SumGradientsFunction : torch::autograd::Function<SumGradientsFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, TensorGroup* group) {
    Keep(ctx, group);
    return x;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {Sum(grads[0], Kept(ctx)), at::Tensor()};
  }
};

struct SumPartsFunction : torch::autograd::Function<SumPartsFunction> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& y_MN, TensorGroup* group) {
    return Sum(y_MN, *group);
  }
  static variable_list backward(AutogradContext*, variable_list grads) {
    return {grads[0], at::Tensor()};
  }
};

struct GatherColumnsFunction : torch::autograd::Function<GatherColumnsFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& mine_MK, TensorGroup* group) {
    Keep(ctx, group);
    return group->Gather(mine_MK);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {Cut(grads[0], Kept(ctx)), at::Tensor()};
  }
};

struct OwnColumnsFunction : torch::autograd::Function<OwnColumnsFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_MK, TensorGroup* group) {
    Keep(ctx, group);
    return Cut(x_MK, *group);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {Kept(ctx).Gather(grads[0]), at::Tensor()};
  }
};

}  // namespace

at::Tensor SumGradients(const at::Tensor& x, TensorGroup* group) {
  return group == nullptr ? x : SumGradientsFunction::apply(x, group);
}

at::Tensor SumParts(const at::Tensor& y_MN, TensorGroup* group) {
  return group == nullptr ? y_MN : SumPartsFunction::apply(y_MN, group);
}

at::Tensor GatherColumns(const at::Tensor& mine_MK, TensorGroup* group) {
  return group == nullptr ? mine_MK : GatherColumnsFunction::apply(mine_MK, group);
}

at::Tensor OwnColumns(const at::Tensor& x_MK, TensorGroup* group) {
  return group == nullptr ? x_MK : OwnColumnsFunction::apply(x_MK, group);
}

}  // namespace tern::nn
