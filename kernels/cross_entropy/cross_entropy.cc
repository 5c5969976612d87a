// Cross-entropy by rows: the sum of exponentials of the active instruction set, then loss and
// gradient.
#include "kernels/cross_entropy/cross_entropy.h"

#include <cmath>

#include "kernels/common/versions.h"
#include "kernels/cross_entropy/cross_entropy_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrainElements =
    16384;  // Work below which waking a thread costs more than it saves.

float SumExp(const float* z, int64_t v, float* max, float* exponentials) {
  return TERN_ACTIVE(SumExp)(z, v, max, exponentials);
}

void Scale(float* z, int64_t v, float inv_sum, float scale) {
  return TERN_ACTIVE(Scale)(z, v, inv_sum, scale);
}

float Loss(float sum, float max, float target_logit) {
  return static_cast<float>(std::log(static_cast<double>(sum)) + static_cast<double>(max) -
                            static_cast<double>(target_logit));
}

void Row(float* z, int32_t target, int64_t v, float scale, float* loss) {
  if (target == kIgnoreTarget) {
    for (int64_t i = 0; i < v; ++i) z[i] = 0.0f;
    *loss = 0.0f;
    return;
  }
  const float target_logit = z[target];
  float max = 0.0f;
  const float sum = SumExp(z, v, &max, z);
  *loss = Loss(sum, max, target_logit);
  const float inv_sum = 1.0f / sum;
  const float target_probability = z[target] * inv_sum;
  Scale(z, v, inv_sum, scale);
  z[target] = (target_probability - 1.0f) * scale;
}

}  // namespace

void CrossEntropy(float* logits, const int32_t* targets, int64_t m, int64_t v, int64_t ld,
                  float scale, float* loss, const ParallelFor& parallel) {
  if (m == 0 || v == 0) return;
  parallel(m, kGrainElements / v + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      Row(logits + row * ld, targets[row], v, scale, loss + row);
  });
}

void CrossEntropyLoss(const float* logits, const int32_t* targets, int64_t m, int64_t v, int64_t ld,
                      float* loss, const ParallelFor& parallel) {
  if (m == 0 || v == 0) return;
  parallel(m, kGrainElements / v + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      loss[row] = 0.0f;
      if (targets[row] == kIgnoreTarget) continue;
      const float* z = logits + row * ld;
      float max = 0.0f;
      const float sum = SumExp(z, v, &max, nullptr);
      loss[row] = Loss(sum, max, z[targets[row]]);
    }
  });
}

}  // namespace tern::kernels
