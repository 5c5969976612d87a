// Activation checkpointing (Chen et al., "Training deep nets with sublinear memory cost", arXiv
// 1604.06174): a block keeps only its input and runs forward again during backward. libtorch has
// this in Python only. Reentrant form: parameters used by the block get their gradients accumulated
// by the inner backward pass. The block must be deterministic (ours use no random numbers), so its
// second run gives the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace tern::nn {

// `recompute` is false in the forward pass and true when the block runs again for the backward
// pass.
using BlockFunction = std::function<at::Tensor(const at::Tensor& x, bool recompute)>;

// Same value and gradients as block(x, false). REQUIRES: x requires a gradient when gradients are
// recorded, and backward runs by torch::autograd::backward (not grad with chosen inputs).
at::Tensor CheckpointBlock(const at::Tensor& x, BlockFunction block);

}  // namespace tern::nn
