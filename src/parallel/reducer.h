// Data parallel gradients by c10d's Reducer: gradients go into buckets as backward makes them, a
// full bucket's sum over the ranks is under way while backward goes on, and .grad are views into
// the buckets. Sums, not means: the loss is already divided by the targets of all ranks. Buckets
// are laid out once, in the order in which backward makes gradients, so that a resumed run adds in
// the same order as one that was not interrupted.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "parallel/group.h"

namespace tern::parallel {

class GradientReducer {
 public:
  // parameters: fp32 leaves in the order of the forward pass, same on all ranks. `group` must live
  // as long.
  GradientReducer(Group& group, const std::vector<at::Tensor>& parameters, int64_t bucket_bytes);
  ~GradientReducer();

  // Before a backward pass. last: the last micro-batch of the step; only then ranks talk, and when
  // backward returns, .grad holds the sums over all ranks and micro-batches.
  void BeforeBackward(bool last);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::parallel
