// Cross-entropy with the softmax's gradient in one pass over the logits, fp32: the rows of a chunk
// are turned into their own gradient in place, so that a trainer never holds logits and gradient of
// a whole batch.
//   loss = log(sum_j exp(z_j - max)) + max - z_t,  dz_j = (softmax_j - [j = t]) * scale
// Order of the sum: 16 partial sums (common/lanes.h), added pairwise; the same on
// every instruction set and for any number of threads.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

inline constexpr int32_t kIgnoreTarget = -1;

// logits: [m, ld], v columns used; overwritten with the gradient. targets: [m], each in [0, v) or
// kIgnoreTarget (loss 0, gradient 0). loss: [m], in nats. NaN or Inf among the logits gives a loss
// that is not finite: the caller looks.
void CrossEntropy(float* logits, const int32_t* targets, int64_t m, int64_t v, int64_t ld,
                  float scale, float* loss, const ParallelFor& parallel);

// The loss alone; logits stay as they are.
void CrossEntropyLoss(const float* logits, const int32_t* targets, int64_t m, int64_t v, int64_t ld,
                      float* loss, const ParallelFor& parallel);

}  // namespace tern::kernels
