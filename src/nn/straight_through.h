// The straight-through estimator (Bengio et al., arXiv 1308.3432): another value in the forward
// pass, the gradient as if nothing had been replaced.
#pragma once

#include <ATen/core/Tensor.h>

namespace tern::nn {

// `value`; its gradient goes to x, where `inside` is true if that is given (bool, x's shape: what
// was clipped does not move). value is no part of the graph.
at::Tensor StraightThrough(const at::Tensor& x, const at::Tensor& value,
                           const at::Tensor& inside = {});

}  // namespace tern::nn
