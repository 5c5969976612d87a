// See auto_round.h. [N, G, S]: the groups of a row; [N, G]: a number a group.
#include "ptq/auto_round.h"

#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "base/error.h"

namespace tern::ptq {
namespace {

using quant::BlockScales;
using quant::QuantizedWeight;

constexpr double kHalfStep = 0.5;

class AutoRoundMatrix : public TrainedMatrix {
 public:
  AutoRoundMatrix(const at::Tensor& w_NK, const QuantizedWeight& start, int64_t steps)
      : w_NK_(w_NK),
        format_(start.format),
        grid_(start.format.grid()),
        step_size_(1.0 / static_cast<double>(steps)),
        scales_(start.scales),
        offset_NK_(at::zeros_like(w_NK)) {
    const at::Tensor w_NGS = Groups(w_NK_);
    min_NG_ = w_NGS.amin(2).clamp_max(0);
    max_NG_ = w_NGS.amax(2).clamp_min(0);
    // The part of the range that the starting scales cover; 1 where the group is 0. Scales of the
    // whole range may be rounded up to a little more than all of it.
    const at::Tensor whole_NG = ScaleOf(at::ones_like(min_NG_), at::ones_like(min_NG_));
    const at::Tensor part_NG =
        at::where(whole_NG > 0, scales_.scale_RC / whole_NG, at::ones_like(whole_NG));
    most_NG_ = part_NG.clamp_min(1);
    alpha_NG_ = part_NG.clone();
    beta_NG_ = part_NG;
  }

  QuantizedWeight Weight() const override {
    return quant::QuantizeWith(Shifted(), format_, scales_);
  }

  at::Tensor Values() override {
    value_NK_ = quant::FakeQuantizeWith(Shifted(), format_, scales_, &inside_NK_);
    return value_NK_;
  }

  void Step(const at::Tensor& gradient_NK, double rate) override {
    const double step = step_size_ * rate;
    const at::Tensor passed_NK = gradient_NK * inside_NK_;
    StepRange(gradient_NK, passed_NK, step);
    offset_NK_.sub_(passed_NK.sign_(), step).clamp_(-kHalfStep, kHalfStep);
    SetScales();
  }

 private:
  at::Tensor Groups(const at::Tensor& x_NK) const { return GroupsOf(x_NK, scales_.scale_RC); }
  at::Tensor Shifted() const {
    return Groups(offset_NK_)
        .mul(scales_.scale_RC.unsqueeze(2))
        .add_(Groups(w_NK_))
        .view(w_NK_.sizes());
  }

  // Not yet rounded.
  at::Tensor ScaleOf(const at::Tensor& alpha_NG, const at::Tensor& beta_NG) const {
    return format_.symmetric ? max_NG_.maximum(-min_NG_) * alpha_NG / grid_.hi
                             : (max_NG_ * alpha_NG - min_NG_ * beta_NG) / (grid_.hi - grid_.lo);
  }

  // Signs of the gradients to alpha and beta. With d = sum of dL/dvalue * (value - w inside), the
  // gradient to the scale is d / scale. A zero point moves the values that are clipped: their sum
  // of dL/dvalue, c, counts as -c * scale, and the zero point is -min beta / scale.
  void StepRange(const at::Tensor& gradient_NK, const at::Tensor& passed_NK, double step) {
    const at::Tensor d_NG = Groups(gradient_NK * value_NK_ - passed_NK * w_NK_).sum(2);
    if (format_.symmetric) {
      Move(d_NG, step, &alpha_NG_);
      return;
    }
    const at::Tensor clipped_NG = Groups(passed_NK - gradient_NK).sum(2);
    const at::Tensor least_NG = min_NG_ * beta_NG_;
    const at::Tensor both_NG = d_NG + clipped_NG * least_NG;
    // By max * alpha: both / (scale levels); by min * beta: that with a minus, and -c.
    const at::Tensor by_least_NG =
        both_NG.neg().div_(scales_.scale_RC * (grid_.hi - grid_.lo)).sub_(clipped_NG);
    Move(both_NG * max_NG_, step, &alpha_NG_);
    Move(by_least_NG * min_NG_, step, &beta_NG_);
  }
  void Move(const at::Tensor& gradient_NG, double step, at::Tensor* part_NG) const {
    *part_NG = part_NG->sub(gradient_NG.sign(), step).clamp_min_(0).minimum(most_NG_);
  }

  void SetScales() {
    // New tensors: earlier scales are in the hands of whoever asked for the weight.
    scales_.scale_RC =
        quant::RoundScales(format_.scale_dtype, ScaleOf(alpha_NG_, beta_NG_).contiguous());
    if (format_.symmetric) return;
    scales_.zero_RC = (grid_.lo - min_NG_ * beta_NG_ / scales_.scale_RC)
                          .round_()
                          .clamp_(grid_.lo, grid_.hi)
                          .contiguous();
  }

  at::Tensor w_NK_;
  quant::WeightFormat format_;
  quant::Grid grid_;
  double step_size_;
  BlockScales scales_;
  at::Tensor offset_NK_;  // V
  at::Tensor min_NG_, max_NG_, most_NG_, alpha_NG_, beta_NG_;
  at::Tensor value_NK_, inside_NK_;  // Of the last Values()
};

}  // namespace

std::unique_ptr<TrainedMatrix> AutoRound(const at::Tensor& w_NK, const QuantizedWeight& start,
                                         int64_t steps) {
  TERN_CHECK(start.format.element == quant::Element::kInt && start.format.block_n == 1,
             "AutoRound of ", start.format.Describe());
  return std::make_unique<AutoRoundMatrix>(w_NK, start, steps);
}

}  // namespace tern::ptq
