// See scale_training.h. [N, G]: a number a group of a row.
#include "ptq/scale_training.h"

#include <ATen/ops/zeros_like.h>

#include "base/error.h"
#include "ptq/adam.h"

namespace tern::ptq {
namespace {

using quant::QuantizedWeight;

// Steps in the logarithm, at first; a scale of bf16 has some 2^-8 to the next. Found on SmolLM2.
constexpr double kRate = 3e-3;
// The second for runs of some hundred steps: 0.999 would remember the first gradients to the end.
constexpr double kDecay1 = 0.9, kDecay2 = 0.99, kEpsilon = 1e-12;
// A scale may not leave half to double of what it was.
constexpr double kMost = 0.69;

class ScaledMatrix : public TrainedMatrix {
 public:
  explicit ScaledMatrix(const QuantizedWeight& start)
      : weight_(start),
        start_NG_(start.scales.scale_RC),
        log_NG_(at::zeros_like(start_NG_), {kDecay1, kDecay2, kEpsilon}) {
    QuantizedWeight unit = start;
    unit.scales.scale_RC = at::ones_like(start_NG_);
    unit_NK_ = quant::Dequantize(unit);
  }

  QuantizedWeight Weight() const override { return weight_; }

  at::Tensor Values() override { return quant::Dequantize(weight_); }

  void Step(const at::Tensor& gradient_NK, double rate) override {
    const at::Tensor& scale_NG = weight_.scales.scale_RC;
    const at::Tensor gradient_NG = GroupsOf(gradient_NK * unit_NK_, scale_NG).sum(2).mul_(scale_NG);
    log_NG_.Step(gradient_NG, kRate * rate);
    at::Tensor(log_NG_.value()).clamp_(-kMost, kMost);
    SetScales();
  }

 private:
  void SetScales() {
    // A new tensor: earlier scales are in the hands of whoever asked for the weight.
    weight_.scales.scale_RC = quant::RoundScales(weight_.format.scale_dtype,
                                                 (start_NG_ * log_NG_.value().exp()).contiguous());
  }

  QuantizedWeight weight_;
  at::Tensor start_NG_;
  Adam log_NG_;
  at::Tensor unit_NK_;  // Code - zero point: what scales multiply
};

}  // namespace

std::unique_ptr<TrainedMatrix> TrainScales(const QuantizedWeight& start) {
  TERN_CHECK(start.format.element == quant::Element::kInt && start.format.block_n == 1,
             "training the scales of ", start.format.Describe());
  return std::make_unique<ScaledMatrix>(start);
}

}  // namespace tern::ptq
