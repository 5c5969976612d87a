// See feature_losses.h.
#include "distill/feature_losses.h"

#include <ATen/ops/cosine_similarity.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace tern::distill {
namespace {

constexpr double kLeastNorm = 1e-12;  // Of a vector that is made a unit vector

// log R: [B, A, T, T]; -inf where other_B1TT, which may be undefined, is true.
at::Tensor LogRelation(const at::Tensor& x_MD, int64_t batch, const at::Tensor& other_B1TT,
                       const RelationOptions& options) {
  const int64_t width = x_MD.size(1) / options.heads, tokens = x_MD.size(0) / batch;
  TERN_CHECK(width * options.heads == x_MD.size(1), options.heads, " heads of ", x_MD.size(1));
  at::Tensor a_BATE = x_MD.reshape({batch, tokens, options.heads, width}).transpose(1, 2);
  if (options.normalize)
    a_BATE = a_BATE / a_BATE.square().sum(-1, /*keepdim=*/true).sqrt().clamp_min(kLeastNorm);
  const double temperature =
      options.temperature > 0 ? options.temperature : std::sqrt(static_cast<double>(width));
  at::Tensor scores_BATT = at::matmul(a_BATE, a_BATE.transpose(-2, -1)) / temperature;
  if (other_B1TT.defined())
    scores_BATT.masked_fill_(other_B1TT, -std::numeric_limits<double>::infinity());
  return at::log_softmax(scores_BATT, -1);
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

RelationDocuments DocumentsOf(const data::Batch& batch, bool is_generated) {
  RelationDocuments out;
  if (batch.document_ids.empty() && !is_generated) {
    out.rows = static_cast<double>(batch.batch * batch.tokens);
    out.documents = static_cast<double>(batch.batch);
    return out;
  }
  out.ids.assign(batch.targets.size(), 0);
  if (!batch.document_ids.empty()) out.ids = batch.document_ids;
  for (int64_t row = 0; row < batch.batch; ++row) {
    const int64_t row_end = (row + 1) * batch.tokens;
    for (int64_t begin = row * batch.tokens, end; begin < row_end; begin = end) {
      const auto at = [&](int64_t i) { return static_cast<size_t>(i); };
      int64_t labels_end = begin;  // Behind the last token with a label
      for (end = begin; end < row_end && out.ids[at(end)] == out.ids[at(begin)]; ++end)
        if (batch.targets[at(end)] >= 0) labels_end = end + 1;
      int64_t counted_end = labels_end == begin ? begin : end;
      if (is_generated && counted_end > begin) counted_end = std::min(labels_end + 1, end);
      std::fill(out.ids.begin() + counted_end, out.ids.begin() + end, -1);
      out.rows += static_cast<double>(counted_end - begin);
      if (counted_end > begin) ++out.documents;
    }
  }
  return out;
}

at::Tensor RelationLoss(const model::LayerFeatures& student, const model::LayerFeatures& teacher,
                        const at::Tensor& ids_BT, int64_t batch, double count,
                        const RelationOptions& options) {
  at::Tensor other_B1TT, rows_B1T1;
  if (ids_BT.defined()) {
    other_B1TT = (ids_BT.unsqueeze(2) != ids_BT.unsqueeze(1)).unsqueeze(1);
    rows_B1T1 = (ids_BT >= 0).to(student.q_MD.scalar_type()).view({batch, 1, -1, 1});
  }
  at::Tensor sum;
  for (const auto member :
       {&model::LayerFeatures::q_MD, &model::LayerFeatures::k_MD, &model::LayerFeatures::v_MD}) {
    const at::Tensor log_s = LogRelation(student.*member, batch, other_B1TT, options);
    const at::Tensor log_t = LogRelation(teacher.*member, batch, other_B1TT, options);
    at::Tensor ratio = log_t - log_s;
    if (other_B1TT.defined()) ratio.masked_fill_(other_B1TT, 0).mul_(rows_B1T1);
    const at::Tensor kl =
        (log_t.exp() * ratio).sum() / (count * static_cast<double>(options.heads));
    sum = sum.defined() ? sum + kl : kl;
  }
  return sum;
}

}  // namespace tern::distill
