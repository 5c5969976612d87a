// Losses between the student's and the teacher's distributions over the vocabulary, fused with the
// head's product and done in chunks of rows, as nn/loss.h does for cross-entropy alone: logits of
// batch x vocabulary never exist at once. Gradients are closed forms, computed in the forward pass.
//
// With z the student's logits, p_s = softmax(z / tau), p_t the teacher's at the same tau, m = beta
// p_t + (1 - beta) p_s; every row loss is multiplied by tau^2 when tau_squared (Hinton et al.,
// arXiv 1503.02531: gradients then keep their size over tau):
//   cross_entropy  -log softmax(z)[target], tau 1
//   forward_kl     KL(p_t || p_s)                        dz = (p_s - p_t) / tau
//   reverse_kl     KL(p_s || p_t)                        dz = p_s (g - <p_s, g>) / tau, g = log
//   p_s/p_t jsd            beta KL(p_t || m) + (1 - beta) KL(p_s || m)
//                  dz = p_s (g - <p_s, g>) / tau, g = (1 - beta) log p_s/m   (arXiv 2306.13649)
//   topk_kl        KL over the teacher's k most probable tokens and one more event, all the others:
//                  sum_I p_t log p_t/p_s + t log t/s, t and s the masses outside of I
//                  dz_j = (p_s - p_t) / tau in I, p_s (1 - t/s) / tau outside
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "nn/precision.h"

namespace tern::distill {

enum class LogitLoss { kCrossEntropy, kForwardKl, kReverseKl, kJsd, kTopKKl };

struct LogitTerm {
  LogitLoss kind = LogitLoss::kCrossEntropy;
  double weight = 1;
  double temperature = 1;
  bool tau_squared = true;
  double beta = 0.5;  // jsd
  int64_t k = 64;     // topk_kl
};

// What the teacher says of rows [begin, begin + count): logits, or what a store kept of them.
struct TeacherChunk {
  at::Tensor logits_CV;                         // fp32; undefined when only the top is known
  at::Tensor top_indices_CK, top_log_probs_CK;  // int64, fp32: at the temperature of the term
};
using TeacherRows = std::function<TeacherChunk(int64_t begin, int64_t count)>;

// Loss of each row, fp32 [C], not weighted, and its gradient with respect to the row's logits. For
// every kind but cross-entropy.
struct RowLosses {
  at::Tensor loss_C, dlogits_CV;
};
RowLosses TeacherLoss(const LogitTerm& term, const at::Tensor& logits_CV,
                      const TeacherChunk& teacher);

struct LogitLossOptions {
  nn::ComputeType compute = nn::ComputeType::kFp32;
  int64_t chunk_rows = 512;
  double target_count = 0;   // Cross-entropy is a sum over targets / this
  double teacher_count = 0;  // The others: a sum over rows / this
  bool all_rows = false;     // The others count rows without a target, too (prompts)
  double grad_scale = 1.0;   // Gradients are those of grad_scale * loss
  // Not null: gets each term's share of the gradient by h, [M, D]; undefined for a weight of 0.
  std::vector<at::Tensor>* term_gradients = nullptr;
};

// h_MD: fp32 [M, D]; head_VD: fp32 [V, D]; targets_M: int32, -1 is none. Returns sum of weight *
// loss, fp64 scalar, and adds each term's unweighted loss to `values`. Throws NumericError when the
// teacher's logits are not finite.
at::Tensor ChunkedLogitLosses(const at::Tensor& h_MD, const at::Tensor& head_VD,
                              const at::Tensor& targets_M, const std::vector<LogitTerm>& terms,
                              const TeacherRows& teacher, const LogitLossOptions& options,
                              std::vector<double>* values);

}  // namespace tern::distill
