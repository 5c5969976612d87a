// See logit_losses.h.
#include "distill/logit_losses.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "nn/loss.h"

namespace tern::distill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The least mass outside of the top: keeps log and ratio finite when a model is sure.
constexpr double kLeastTail = 1e-8;

// log softmax(logits / tau).
at::Tensor LogProbs(const at::Tensor& logits_CV, double tau) {
  return at::log_softmax(tau == 1 ? logits_CV : logits_CV / tau, 1);
}

// In place where a matrix is done with: a chunk over a vocabulary is much memory.
RowLosses ForwardKl(const at::Tensor& log_s_CV, const at::Tensor& log_t_CV) {
  const at::Tensor t_CV = log_t_CV.exp();
  at::Tensor work_CV = (log_t_CV - log_s_CV).mul_(t_CV);
  const at::Tensor loss_C = work_CV.sum(1);
  return {loss_C, at::exp_out(work_CV, log_s_CV).sub_(t_CV)};
}

RowLosses ReverseKl(const at::Tensor& log_s_CV, const at::Tensor& log_t_CV) {
  const at::Tensor s_CV = log_s_CV.exp();
  at::Tensor g_CV = log_s_CV - log_t_CV;
  const at::Tensor loss_C = (s_CV * g_CV).sum(1);  // Also <p_s, g>
  return {loss_C, g_CV.sub_(loss_C.unsqueeze(1)).mul_(s_CV)};
}

RowLosses Jsd(const at::Tensor& log_s_CV, const at::Tensor& log_t_CV, double beta) {
  const at::Tensor s_CV = log_s_CV.exp(), t_CV = log_t_CV.exp();
  const at::Tensor log_m_CV = (beta * t_CV + (1 - beta) * s_CV).log();
  const at::Tensor g_CV = log_s_CV - log_m_CV;
  // 0 log 0 is 0: a probability that underflows has no share.
  const at::Tensor t_part_CV = at::where(t_CV == 0, 0.0, t_CV * (log_t_CV - log_m_CV));
  const at::Tensor s_part_CV = at::where(s_CV == 0, 0.0, s_CV * g_CV);
  return {beta * t_part_CV.sum(1) + (1 - beta) * s_part_CV.sum(1),
          (1 - beta) * (s_part_CV - s_CV * s_part_CV.sum(1, /*keepdim=*/true))};
}

RowLosses TopKKl(const at::Tensor& log_s_CV, const at::Tensor& top_CK, const at::Tensor& log_t_CK) {
  const at::Tensor t_CK = log_t_CK.exp(), log_s_CK = log_s_CV.gather(1, top_CK);
  const auto tail = [](const at::Tensor& p_CK) {
    return (1.0 - p_CK.sum(1, /*keepdim=*/true)).clamp_min(kLeastTail);
  };
  const at::Tensor t_tail_C1 = tail(t_CK), s_tail_C1 = tail(log_s_CK.exp());
  const at::Tensor loss_C = (t_CK * (log_t_CK - log_s_CK)).sum(1) +
                            (t_tail_C1 * (t_tail_C1.log() - s_tail_C1.log())).squeeze(1);
  at::Tensor dz_CV = log_s_CV.exp().mul_(1.0 - t_tail_C1 / s_tail_C1);
  dz_CV.scatter_(1, top_CK, log_s_CK.exp() - t_CK);
  return {loss_C, dz_CV};
}

void CheckTeacher(const TeacherChunk& teacher, int64_t begin) {
  const at::Tensor& given =
      teacher.logits_CV.defined() ? teacher.logits_CV : teacher.top_log_probs_CK;
  if (std::isfinite(given.sum().item<double>())) return;  // One pass without a mask of its size
  const at::Tensor bad_C = given.isfinite().all(1).logical_not();
  if (!bad_C.any().item<bool>()) return;
  throw NumericError(StrCat("the teacher's logits of row ",
                            begin + bad_C.nonzero()[0].item<int64_t>(),
                            " of a micro-batch hold NaN or Inf; check the teacher (teacher.from) "
                            "with tern eval"));
}

// The sum over one chunk of all terms: values into *values, weighted gradient by the logits out.
class ChunkLosses {
 public:
  ChunkLosses(const std::vector<LogitTerm>& terms, const TeacherRows& teacher,
              const LogitLossOptions& options)
      : terms_(terms), teacher_(teacher), options_(options) {}

  // Sums of the terms over the rows, each divided by its count; uses the logits up. `parts`, when
  // given: the terms of the gradient.
  at::Tensor operator()(const at::Tensor& logits_CV, const at::Tensor& targets_C, int64_t begin,
                        std::vector<double>* values, std::vector<at::Tensor>* parts) const {
    at::Tensor gradient_CV;
    TeacherChunk teacher;
    const at::Tensor rows_C =
        options_.all_rows ? at::ones_like(targets_C, at::kFloat) : (targets_C >= 0).to(at::kFloat);
    for (size_t i = 0; i < terms_.size(); ++i) {
      const LogitTerm& term = terms_[i];
      at::Tensor part_CV;
      if (term.kind == LogitLoss::kCrossEntropy) {
        const bool is_last = i + 1 == terms_.size();
        part_CV = is_last ? logits_CV : logits_CV.clone();
        const double factor = term.weight * options_.grad_scale / options_.target_count;
        (*values)[i] += nn::CrossEntropyRows(part_CV, targets_C, factor) / options_.target_count;
      } else {
        if (!teacher.logits_CV.defined() && !teacher.top_indices_CK.defined())
          teacher = Ask(begin, logits_CV.size(0));
        RowLosses row = TeacherLoss(term, logits_CV, teacher);
        const double sum = (row.loss_C * rows_C).sum(at::kDouble).item<double>();
        (*values)[i] += sum / options_.teacher_count;
        const double factor = term.weight * options_.grad_scale / options_.teacher_count;
        part_CV = row.dlogits_CV.mul_((rows_C * factor).unsqueeze(1));
      }
      if (parts != nullptr) parts->push_back(part_CV);
      if (term.weight == 0) continue;  // Only measured
      if (gradient_CV.defined()) {
        gradient_CV.add_(part_CV);
      } else {
        gradient_CV = parts != nullptr ? part_CV.clone() : part_CV;
      }
    }
    return gradient_CV.defined() ? gradient_CV : at::zeros_like(logits_CV);
  }

 private:
  TeacherChunk Ask(int64_t begin, int64_t count) const {
    TeacherChunk teacher = teacher_(begin, count);
    CheckTeacher(teacher, begin);
    return teacher;
  }

  const std::vector<LogitTerm>& terms_;
  const TeacherRows& teacher_;
  const LogitLossOptions& options_;
};

struct LogitLossFunction : torch::autograd::Function<LogitLossFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& h_MD, const at::Tensor& head_VD,
                            const at::Tensor& targets_M, const ChunkLosses& losses,
                            const LogitLossOptions& options, const std::vector<double>& weights,
                            std::vector<double>* values) {
    const int64_t rows = h_MD.size(0);
    at::Tensor dh_MD = at::empty_like(h_MD), dhead_VD = at::zeros_like(head_VD);
    std::vector<double> sums(weights.size(), 0.0);
    std::vector<at::Tensor>* terms = options.term_gradients;
    if (terms != nullptr) {
      terms->assign(weights.size(), at::Tensor());
      for (size_t i = 0; i < weights.size(); ++i)
        if (weights[i] > 0) (*terms)[i] = at::empty_like(h_MD);
    }
    for (int64_t begin = 0; begin < rows; begin += options.chunk_rows) {
      const int64_t count = std::min(options.chunk_rows, rows - begin);
      const at::Tensor h_CD = h_MD.narrow(0, begin, count);
      const at::Tensor logits_CV = nn::MatMul(h_CD, head_VD.t(), options.compute);
      std::vector<at::Tensor> parts;
      const at::Tensor dlogits_CV = losses(logits_CV, targets_M.narrow(0, begin, count), begin,
                                           &sums, terms != nullptr ? &parts : nullptr);
      for (size_t i = 0; i < parts.size(); ++i) {
        if (weights[i] > 0)
          (*terms)[i].narrow(0, begin, count).copy_(nn::MatMul(parts[i], head_VD, options.compute));
      }
      dh_MD.narrow(0, begin, count).copy_(nn::MatMul(dlogits_CV, head_VD, options.compute));
      nn::AddMatMul(dlogits_CV.t(), h_CD, options.compute, &dhead_VD);
    }
    ctx->save_for_backward({dh_MD, dhead_VD});
    double total = 0;
    for (size_t i = 0; i < sums.size(); ++i) {
      total += weights[i] * sums[i];
      (*values)[i] += sums[i];
    }
    return at::scalar_tensor(total, at::kDouble);
  }

  static variable_list backward(AutogradContext* ctx,
                                variable_list /*1: the scale is in options*/) {
    const variable_list saved = ctx->get_saved_variables();
    return {saved[0],     saved[1],     at::Tensor(), at::Tensor(),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

RowLosses TeacherLoss(const LogitTerm& term, const at::Tensor& logits_CV,
                      const TeacherChunk& teacher) {
  const double tau = term.temperature;
  const at::Tensor log_s_CV = LogProbs(logits_CV, tau);
  const auto log_t = [&] {
    TERN_CHECK(teacher.logits_CV.defined(), "this loss wants the teacher's logits");
    return LogProbs(teacher.logits_CV, tau);
  };
  RowLosses out;
  switch (term.kind) {
    case LogitLoss::kForwardKl:
      out = ForwardKl(log_s_CV, log_t());
      break;
    case LogitLoss::kReverseKl:
      out = ReverseKl(log_s_CV, log_t());
      break;
    case LogitLoss::kJsd:
      out = Jsd(log_s_CV, log_t(), term.beta);
      break;
    case LogitLoss::kTopKKl:
      if (teacher.top_indices_CK.defined()) {
        out = TopKKl(log_s_CV, teacher.top_indices_CK, teacher.top_log_probs_CK);
      } else {
        const auto [log_t_CK, top_CK] = at::topk(log_t(), term.k, 1);
        out = TopKKl(log_s_CV, top_CK, log_t_CK);
      }
      break;
    case LogitLoss::kCrossEntropy:
      throw BugError("cross-entropy wants no teacher");
  }
  if (tau != 1) out.dlogits_CV.mul_(term.tau_squared ? tau : 1 / tau);
  if (term.tau_squared) out.loss_C = out.loss_C * (tau * tau);
  return out;
}

at::Tensor ChunkedLogitLosses(const at::Tensor& h_MD, const at::Tensor& head_VD,
                              const at::Tensor& targets_M, const std::vector<LogitTerm>& terms,
                              const TeacherRows& teacher, const LogitLossOptions& options,
                              std::vector<double>* values) {
  TERN_CHECK(!terms.empty() && values->size() == terms.size(), terms.size(), " terms");
  TERN_CHECK(options.target_count > 0 && options.teacher_count > 0 && options.chunk_rows > 0,
             "count ", options.target_count, ", ", options.teacher_count);
  std::vector<double> weights;
  for (const LogitTerm& term : terms) weights.push_back(term.weight);
  const ChunkLosses losses(terms, teacher, options);
  return LogitLossFunction::apply(h_MD.contiguous(), head_VD, targets_M, losses, options, weights,
                                  values);
}

}  // namespace tern::distill
