// Products of which several ranks make a part each (tensor parallelism; Megatron-LM, arXiv
// 1909.08053), as autograd functions: what ranks exchange in the forward pass, and in the backward
// pass. A matrix is cut by rows, then inputs are whole and outputs a part of the columns; or by
// columns, then outputs are sums over the ranks. All functions are collectives where they exchange;
// with a null group they return x itself.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tern::nn {

// The ranks that share each product. Lives until the backward pass is over.
class TensorGroup {
 public:
  virtual ~TensorGroup() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;
  // x: contiguous; becomes the sum over the ranks, the same bits on each.
  virtual void Sum(const at::Tensor& x) = 0;
  // The ranks' [M, K/T] side by side, in rank order: [M, K].
  virtual at::Tensor Gather(const at::Tensor& mine_MK) = 0;
};

// x, whole on every rank, before it goes into rows of matrices. Its gradient is the sum over the
// ranks.
at::Tensor SumGradients(const at::Tensor& x, TensorGroup* group);

// The sum of what the ranks' columns of a matrix give. The gradient is that of each part.
at::Tensor SumParts(const at::Tensor& y_MN, TensorGroup* group);

// The ranks' columns side by side, [M, K/T] -> [M, K]. The gradient, whole on every rank, is cut.
at::Tensor GatherColumns(const at::Tensor& mine_MK, TensorGroup* group);

// Of whole rows, [M, K], the columns of this rank, [M, K/T]; its gradient is gathered.
at::Tensor OwnColumns(const at::Tensor& x_MK, TensorGroup* group);

}  // namespace tern::nn
