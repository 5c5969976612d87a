// See feature_losses.h.
#include "distill/feature_losses.h"

#include <ATen/ops/cosine_similarity.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>

#include <cmath>

#include "base/error.h"

namespace tern::distill {
namespace {

constexpr double kLeastNorm = 1e-12;  // Of a vector that is made a unit vector

// log R: [B, A, T, T].
at::Tensor LogRelation(const at::Tensor& x_MD, int64_t batch, int64_t tokens,
                       const RelationOptions& options) {
  const int64_t width = x_MD.size(1) / options.heads;
  TERN_CHECK(width * options.heads == x_MD.size(1), options.heads, " heads of ", x_MD.size(1));
  at::Tensor a_BATE = x_MD.reshape({batch, tokens, options.heads, width}).transpose(1, 2);
  if (options.normalize)
    a_BATE = a_BATE / a_BATE.square().sum(-1, /*keepdim=*/true).sqrt().clamp_min(kLeastNorm);
  const double temperature =
      options.temperature > 0 ? options.temperature : std::sqrt(static_cast<double>(width));
  return at::log_softmax(at::matmul(a_BATE, a_BATE.transpose(-2, -1)) / temperature, -1);
}

}  // namespace

at::Tensor HiddenLoss(const at::Tensor& student_MS, const at::Tensor& teacher_MT,
                      const at::Tensor& projection_TS, const at::Tensor& rows_M, double count,
                      HiddenDistance distance) {
  const at::Tensor s_MT =
      projection_TS.defined() ? at::matmul(student_MS, projection_TS.t()) : student_MS;
  TERN_CHECK(s_MT.size(1) == teacher_MT.size(1), "widths ", s_MT.size(1), " and ",
             teacher_MT.size(1));
  const at::Tensor loss_M = distance == HiddenDistance::kMse
                                ? (s_MT - teacher_MT).square().mean(1)
                                : 1.0 - at::cosine_similarity(s_MT, teacher_MT, 1);
  return (loss_M * rows_M).sum() / count;
}

at::Tensor RelationLoss(const model::LayerFeatures& student, const model::LayerFeatures& teacher,
                        int64_t batch, int64_t tokens, const RelationOptions& options) {
  const auto divisor = static_cast<double>(options.reduction == RelationReduction::kMean
                                               ? batch * options.heads * tokens
                                               : batch * options.heads);
  at::Tensor sum;
  for (const auto member :
       {&model::LayerFeatures::q_MD, &model::LayerFeatures::k_MD, &model::LayerFeatures::v_MD}) {
    const at::Tensor log_s = LogRelation(student.*member, batch, tokens, options);
    const at::Tensor log_t = LogRelation(teacher.*member, batch, tokens, options);
    const at::Tensor kl = (log_t.exp() * (log_t - log_s)).sum() / divisor;
    sum = sum.defined() ? sum + kl : kl;
  }
  return sum;
}

}  // namespace tern::distill
