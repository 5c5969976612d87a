// Cross-entropy over the vocabulary, fused with the head's product and done in chunks of rows, so
// that logits of batch x vocabulary never exist at once (the idea of Liger's fused linear
// cross-entropy, arXiv 2410.10989). The gradients are computed in the forward pass, chunk by chunk,
// and handed out in backward.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/precision.h"

namespace tern::nn {

struct LossOptions {
  ComputeType compute = ComputeType::kFp32;
  int64_t chunk_rows = 512;  // Rows of logits held at once
  double count = 0;          // The loss is the sum of negative log-likelihoods / count; > 0
  double grad_scale =
      1.0;  // Gradients are those of grad_scale * loss (loss scaling happens before any rounding)
};

// h_MD: fp32 [M, D]; head_VD: fp32 [V, D]; targets_M: int32, -1 is ignored. Returns the unscaled
// loss, fp64 scalar.
at::Tensor ChunkedCrossEntropy(const at::Tensor& h_MD, const at::Tensor& head_VD,
                               const at::Tensor& targets_M, const LossOptions& options);

// Turns logits [C, V], fp32 and contiguous, into grad_factor times their gradient, in place;
// returns the sum of the rows' losses. targets_C: int32, -1 is ignored.
double CrossEntropyRows(at::Tensor logits_CV, const at::Tensor& targets_C, double grad_factor);

}  // namespace tern::nn
