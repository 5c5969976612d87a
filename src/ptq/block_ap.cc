// See block_ap.h. [N, G, S]: the groups of a row; [N, G]: a number a group.
#include "ptq/block_ap.h"

#include <ATen/ops/zeros_like.h>

#include "base/error.h"
#include "ptq/adam.h"

namespace tern::ptq {
namespace {

using quant::QuantizedWeight;

class BlockApMatrix : public TrainedMatrix {
 public:
  BlockApMatrix(const at::Tensor& w_NK, const QuantizedWeight& start,
                const recipe::BlockApSettings& settings)
      : settings_(settings),
        format_(start.format),
        grid_(start.format.grid()),
        scales_(start.scales),
        w_NK_(w_NK.clone(), {}),
        s_NG_(start.scales.scale_RC.clone(), {}),
        z_NG_(format_.symmetric ? at::zeros_like(start.scales.scale_RC)
                                : start.scales.zero_RC.clone(),
              {}) {}

  QuantizedWeight Weight() const override {
    return quant::QuantizeWith(w_NK_.value(), format_, scales_);
  }

  at::Tensor Values() override {
    value_NK_ = quant::FakeQuantizeWith(w_NK_.value(), format_, scales_);
    // Up to half a step beyond the last code a weight is rounded to it, not clipped.
    at::Tensor code_NGS = Groups(w_NK_.value()) / scales_.scale_RC.unsqueeze(2);
    if (!format_.symmetric) code_NGS.add_(scales_.zero_RC.unsqueeze(2));
    code_NGS.round_();
    inside_NK_ = code_NGS.ge(grid_.lo).logical_and_(code_NGS.le(grid_.hi)).view(value_NK_.sizes());
    return value_NK_;
  }

  void Step(const at::Tensor& gradient_NK, double rate) override {
    const at::Tensor passed_NK = gradient_NK * inside_NK_;
    const at::Tensor by_scale_NG =
        Groups(gradient_NK * value_NK_ - passed_NK * w_NK_.value()).sum(2) / scales_.scale_RC;
    if (!format_.symmetric) {
      const at::Tensor clipped_NG = Groups(passed_NK - gradient_NK).sum(2);
      z_NG_.Step(clipped_NG * scales_.scale_RC, settings_.scale_lr * rate);
    }
    s_NG_.Step(by_scale_NG, settings_.scale_lr * rate);
    w_NK_.Step(passed_NK, settings_.weight_lr * rate);
    SetScales();
  }

 private:
  at::Tensor Groups(const at::Tensor& x_NK) const { return GroupsOf(x_NK, scales_.scale_RC); }

  void SetScales() {
    // New tensors: earlier ones are in the hands of whoever asked for the weight.
    scales_.scale_RC = quant::RoundScales(format_.scale_dtype, s_NG_.value().clamp_min(0));
    if (!format_.symmetric) scales_.zero_RC = z_NG_.value().round().clamp_(grid_.lo, grid_.hi);
  }

  recipe::BlockApSettings settings_;
  quant::WeightFormat format_;
  quant::Grid grid_;
  quant::BlockScales scales_;  // As stored
  Adam w_NK_, s_NG_, z_NG_;
  at::Tensor value_NK_, inside_NK_;  // Of the last Values()
};

}  // namespace

std::unique_ptr<TrainedMatrix> BlockAp(const at::Tensor& w_NK, const QuantizedWeight& start,
                                       const recipe::BlockApSettings& settings) {
  TERN_CHECK(start.format.element == quant::Element::kInt && start.format.block_n == 1,
             "Block-AP of ", start.format.Describe());
  return std::make_unique<BlockApMatrix>(w_NK, start, settings);
}

}  // namespace tern::ptq
