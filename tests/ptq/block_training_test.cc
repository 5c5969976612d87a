// Training of a layer's codes and scales: the loss and its gradients, what AutoRound and the
// training of scales do in a step against their formulas, and that the result is never worse than
// the start.
#include "ptq/block_training.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>

#include "base/error.h"
#include "base/stop_signal.h"
#include "ptq/auto_round.h"
#include "ptq/float_model.h"
#include "ptq/scale_training.h"
#include "tests/ptq/tiny_source.h"

namespace tern::ptq {
namespace {

using quant::IntFormat;
using quant::QuantizedWeight;
using quant::RangeSearch;
using quant::WeightFormat;

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator);
}

RangeSearch Searched() {
  RangeSearch range;
  range.method = RangeSearch::Method::kMse;
  return range;
}

struct Case {
  int bits;
  int64_t group;
  bool symmetric;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.bits << " bits, groups of " << c.group << (c.symmetric ? "" : ", zero points");
}

class TrainedMatrixTest : public ::testing::TestWithParam<Case> {
 protected:
  TrainedMatrixTest() { at::set_num_threads(1); }
  WeightFormat Format() const {
    return IntFormat(GetParam().bits, GetParam().group, GetParam().symmetric);
  }
};

INSTANTIATE_TEST_SUITE_P(All, TrainedMatrixTest,
                         ::testing::Values(Case{2, 16, true}, Case{2, 64, false}, Case{3, 96, true},
                                           Case{4, 8, false}, Case{4, 64, true}, Case{4, 0, false},
                                           Case{8, 0, true}));

// Whatever was learned, the values of training are those of the stored codes and scales, and the
// start is the start.
TEST_P(TrainedMatrixTest, ValuesAreThoseStored) {
  for (const int64_t rows : {1, 7, 33}) {
    at::Tensor w_NK = Random({rows, 192}, static_cast<uint64_t>(rows)) * 0.02;
    w_NK.slice(1, 0, 16).zero_();  // A whole group, or a part
    for (const RangeSearch& range : {RangeSearch(), Searched()}) {
      const QuantizedWeight start = quant::Quantize(w_NK, Format(), range);
      for (const bool rounding : {true, false}) {
        const auto matrix = rounding ? AutoRound(w_NK, start, 4) : TrainScales(start);
        EXPECT_TRUE(at::equal(matrix->Values(), quant::Dequantize(start))) << rounding;
        // Always the same way, by 2.5 in all: to where offsets and ranges end.
        for (int step = 0; step < 10; ++step) {
          matrix->Step(Random({rows, 192}, 100), 1);
          const QuantizedWeight now = matrix->Weight();
          ASSERT_TRUE(at::equal(matrix->Values(), quant::Dequantize(now))) << rounding;
          ASSERT_TRUE((now.scales.scale_RC > 0).all().item<bool>());
          ASSERT_TRUE(now.scales.scale_RC.isfinite().all().item<bool>());
          EXPECT_TRUE(
              at::equal(now.scales.scale_RC.to(at::kBFloat16).to(at::kFloat), now.scales.scale_RC));
          if (rounding) {
            // Offsets are within half a step: no code is further than 1 from the nearest.
            const QuantizedWeight nearest = quant::QuantizeWith(w_NK, Format(), now.scales);
            const at::Tensor distance =
                (now.codes_NK.to(at::kInt) - nearest.codes_NK.to(at::kInt)).abs();
            EXPECT_LE(distance.max().item<int>(), 1);
          } else {
            EXPECT_TRUE(at::equal(now.codes_NK, start.codes_NK));
          }
        }
      }
    }
  }
}

// One step from the start, by libtorch's own derivatives of the paper's formulas in double.
TEST_P(TrainedMatrixTest, AutoRoundIsTheDefinition) {
  const int64_t n = 33, k = 192, steps = 4;
  const at::Tensor w_NK = Random({n, k}, 1) * 0.02, gradient_NK = Random({n, k}, 2);
  const QuantizedWeight start = quant::Quantize(w_NK, Format(), Searched());
  const auto matrix = AutoRound(w_NK, start, steps);
  matrix->Values();
  matrix->Step(gradient_NK, /*rate=*/0.5);
  const QuantizedWeight found = matrix->Weight();
  const quant::Grid grid = Format().grid();
  const double levels = grid.hi - grid.lo;
  const int64_t groups = start.scales.scale_RC.size(1);
  const auto ste = [](const at::Tensor& x, const at::Tensor& value) {
    return x + (value - x).detach();
  };
  const at::Tensor w = w_NK.to(at::kDouble).view({n, groups, -1});
  const at::Tensor min = w.amin(2, true).clamp_max(0), max = w.amax(2, true).clamp_min(0);
  const at::Tensor scale0 = start.scales.scale_RC.to(at::kDouble).unsqueeze(2);
  const at::Tensor amax = max.maximum(-min);
  const at::Tensor part =
      GetParam().symmetric ? scale0 * grid.hi / amax : scale0 * levels / (max - min);
  at::Tensor alpha = part.clone().requires_grad_(true), beta = part.clone().requires_grad_(true);
  at::Tensor v = at::zeros_like(w).requires_grad_(true);
  const auto scale_of = [&](const at::Tensor& a, const at::Tensor& b) {
    return GetParam().symmetric ? amax * a / grid.hi : (max * a - min * b) / levels;
  };
  const at::Tensor unrounded = scale_of(alpha, beta);
  const at::Tensor s = ste(unrounded, scale0);
  at::Tensor z = at::zeros_like(s);
  if (!GetParam().symmetric) {
    const at::Tensor exact = grid.lo - min * beta / s;
    z = ste(exact, start.scales.zero_RC.to(at::kDouble).unsqueeze(2));
  }
  const at::Tensor u = w / s + z + v;
  const at::Tensor code0 = u.round(), clipped = code0.clamp(grid.lo, grid.hi).detach();
  const at::Tensor value = (at::where(code0 == clipped, ste(u, code0), clipped) - z) * s;
  value.backward(gradient_NK.to(at::kDouble).view({n, groups, -1}));
  const double step = 0.5 / static_cast<double>(steps);
  const auto moved = [&](const at::Tensor& x, const at::Tensor& most) {
    return (x - step * x.grad().sign()).clamp_min(0).minimum(most);
  };
  const at::Tensor most = part.clamp_min(1);
  const at::Tensor alpha1 = moved(alpha, most);
  const at::Tensor beta1 = GetParam().symmetric ? beta : moved(beta, most);
  const at::Tensor scale1 = scale_of(alpha1, beta1).to(at::kBFloat16).to(at::kDouble).squeeze(2);
  // The sign of a gradient that is all but 0 may differ between fp32 and double.
  const at::Tensor equal_scale =
      (found.scales.scale_RC.to(at::kDouble) - scale1).abs() <= 1e-12 * scale1;
  EXPECT_GT(equal_scale.to(at::kDouble).mean().item<double>(), 0.97);
  const at::Tensor v1 = (v - step * v.grad().sign()).clamp(-0.5, 0.5);
  const at::Tensor s1 = found.scales.scale_RC.to(at::kDouble).unsqueeze(2);
  at::Tensor z1 = at::zeros_like(s1);
  if (!GetParam().symmetric) {
    z1 = found.scales.zero_RC.to(at::kDouble).unsqueeze(2);
    const at::Tensor zero = (grid.lo - min * beta1 / s1).round().clamp(grid.lo, grid.hi);
    EXPECT_GT((zero == z1).to(at::kDouble).mean().item<double>(), 0.97);
  }
  const at::Tensor code = (w / s1 + z1 + v1).round().clamp(grid.lo, grid.hi).view({n, k});
  EXPECT_GT((code == found.codes_NK.to(at::kDouble)).to(at::kDouble).mean().item<double>(), 0.99);
}

// With |value - w|^2 as the loss the best scale is <w, u> / <u, u>, u = code - zero point.
TEST_P(TrainedMatrixTest, ScalesGoToTheLeastSquares) {
  const int64_t n = 5, k = 192;
  const at::Tensor w_NK = Random({n, k}, 3) * 0.02;
  const QuantizedWeight start = quant::Quantize(w_NK, Format(), {});
  const auto matrix = TrainScales(start);
  constexpr int kSteps = 400;
  for (int step = 0; step < kSteps; ++step)
    matrix->Step(2 * (matrix->Values() - w_NK), 1 - static_cast<double>(step) / kSteps);
  const QuantizedWeight found = matrix->Weight();
  QuantizedWeight unit = start;
  unit.scales.scale_RC = at::ones_like(start.scales.scale_RC);
  const int64_t groups = start.scales.scale_RC.size(1);
  const at::Tensor u = quant::Dequantize(unit).to(at::kDouble).view({n, groups, -1});
  const at::Tensor best =
      (u * w_NK.to(at::kDouble).view({n, groups, -1})).sum(2) / u.square().sum(2);
  // Rounded to bf16 it is within 2^-9 of it; near to it the gradient of the rounded value changes
  // its sign between two neighbours, one of which is kept: another 2^-8.
  const at::Tensor distance = (found.scales.scale_RC / best - 1).abs();
  EXPECT_LT(distance.max().item<double>(), 0x1p-8 + 0x1p-9);
  EXPECT_GT((start.scales.scale_RC / best - 1).abs().max().item<double>(), 1e-3);
}

TEST(ScaleTrainingTest, GroupsOfZerosKeepTheirScale) {
  at::Tensor w_NK = Random({3, 64}, 4);
  w_NK.slice(1, 32, 64).zero_();
  const QuantizedWeight start = quant::Quantize(w_NK, IntFormat(4, 32), {});
  const auto matrix = TrainScales(start);
  for (int step = 0; step < 5; ++step) matrix->Step(Random({3, 64}, 5), 1);
  EXPECT_TRUE(
      at::equal(matrix->Weight().scales.scale_RC.select(1, 1), start.scales.scale_RC.select(1, 1)));
  EXPECT_FALSE(
      at::equal(matrix->Weight().scales.scale_RC.select(1, 0), start.scales.scale_RC.select(1, 0)));
}

// A layer of the tiny model, its inputs, and the outputs that it has in floats.
class BlockTrainingTest : public ::testing::Test {
 protected:
  BlockTrainingTest() {
    const at::NoGradGuard no_grad;
    WriteTinySource(folder_);
    FloatModel model(folder_ / "source", "", false);
    config_ = model.config();
    rope_ = nn::MakeRopeTables(24, config_.HeadDim(), config_.rope_theta);
    const std::string prefix = "model.layers.0.";
    for (const ParameterSpec& spec : ParameterTable(config_))
      if (spec.name.starts_with(prefix))
        tensors_[spec.name.substr(prefix.size())] = model.Read(spec).contiguous();
    x_BTD_ = Random({6, 24, config_.hidden_size}, 7);
    target_BTD_ = at::empty_like(x_BTD_);
    const BlockPass pass(config_, rope_, tensors_, x_BTD_);
    for (int64_t b = 0; b < 6; ++b) target_BTD_[b].copy_(pass.Output(x_BTD_[b]));
    for (const auto& [name, value] : tensors_)
      if (value.dim() == 2) start_[name] = quant::Quantize(value, IntFormat(3, 64), Searched());
  }
  BlockLoss Loss() const { return BlockLoss(config_, rope_, tensors_, x_BTD_, target_BTD_); }
  std::map<std::string, std::unique_ptr<TrainedMatrix>> Matrices(bool rounding) const {
    std::map<std::string, std::unique_ptr<TrainedMatrix>> matrices;
    for (const auto& [name, weight] : start_)
      matrices[name] = rounding ? AutoRound(tensors_.at(name), weight, 30) : TrainScales(weight);
    return matrices;
  }

  testing::TempFolder folder_;
  ModelConfig config_;
  nn::RopeTables rope_;
  BlockPass::Tensors tensors_;
  LayerWeights start_;
  at::Tensor x_BTD_, target_BTD_;
};

TEST_F(BlockTrainingTest, OutputIsThatOfTheSteps) {
  const at::NoGradGuard no_grad;
  at::Tensor x_BTD = x_BTD_.clone();
  BlockPass pass(config_, rope_, tensors_, x_BTD);
  for (const Step step : kSteps) {
    pass.Inputs(step, [](const at::Tensor&) {});
    pass.Finish(step);
  }
  EXPECT_TRUE(at::equal(x_BTD, target_BTD_));
}

// Along its gradient each matrix changes the loss by the gradient's square.
TEST_F(BlockTrainingTest, GradientsAreThoseOfTheLoss) {
  BlockLoss loss = Loss();
  BlockPass::Tensors values, gradients;
  for (const auto& [name, weight] : start_) values[name] = quant::Dequantize(weight);
  const double here = loss.AddGradients(values, 2, &gradients);
  EXPECT_GT(here, 0);
  for (const auto& [name, gradient] : gradients) {
    const double square = gradient.square().sum(at::kDouble).item<double>();
    // A change of a hundredth of the loss: fp32 sums keep 5 digits of it, curvature cancels.
    const double h = 0.01 * here / square;
    BlockPass::Tensors moved = values, ignored;
    moved[name] = values[name] + h * gradient;
    const double above = loss.AddGradients(moved, 2, &ignored);
    moved[name] = values[name] - h * gradient;
    const double below = loss.AddGradients(moved, 2, &ignored);
    EXPECT_NEAR((above - below) / (2 * h * square), 1, 0.02) << name;
  }
  BlockPass::Tensors both = gradients, other;  // Sums of sequences
  for (auto& [name, gradient] : both) gradient = gradient.clone();
  loss.AddGradients(values, 4, &both);
  loss.AddGradients(values, 4, &other);
  for (const auto& [name, gradient] : gradients)
    EXPECT_TRUE(at::allclose(both.at(name), gradient + other.at(name), 1e-5, 1e-9)) << name;
}

TEST_F(BlockTrainingTest, BothKindsOfTrainingLowerTheLoss) {
  const at::NoGradGuard no_grad;
  for (const bool rounding : {true, false}) {
    BlockLoss loss = Loss();
    LayerWeights best = start_;
    const BlockTrained trained = TrainBlock({30, 1, "test"}, &loss, Matrices(rounding), &best);
    EXPECT_EQ(trained.loss_before, loss.Of(start_));
    EXPECT_LT(trained.loss, (rounding ? 0.9 : 0.99) * trained.loss_before) << rounding;
    EXPECT_EQ(trained.loss, loss.Of(best));
    EXPECT_GT(trained.step, 0);
  }
}

TEST_F(BlockTrainingTest, SameStreamSameResultOtherStreamAnother) {
  const at::NoGradGuard no_grad;
  const auto codes = [&](const std::string& stream, int threads) {
    at::set_num_threads(threads);
    BlockLoss loss = Loss();
    LayerWeights best = start_;
    TrainBlock({30, 1, stream}, &loss, Matrices(true), &best);
    at::set_num_threads(1);
    return best.at("mlp.up_proj.weight").codes_NK;
  };
  const at::Tensor once = codes("a", 1);
  EXPECT_TRUE(at::equal(once, codes("a", 1)));
  EXPECT_TRUE(at::equal(once, codes("a", 3)));
  EXPECT_FALSE(at::equal(once, codes("b", 1)));
}

// Goes away from the start in each step.
class Worse : public TrainedMatrix {
 public:
  explicit Worse(QuantizedWeight weight) : weight_(std::move(weight)) {}
  QuantizedWeight Weight() const override { return weight_; }
  at::Tensor Values() override { return quant::Dequantize(weight_); }
  void Step(const at::Tensor&, double) override {
    weight_.scales.scale_RC = weight_.scales.scale_RC * 1.5;
  }

 private:
  QuantizedWeight weight_;
};

TEST_F(BlockTrainingTest, WhatIsWorseIsNotKept) {
  const at::NoGradGuard no_grad;
  BlockLoss loss = Loss();
  LayerWeights best = start_;
  std::map<std::string, std::unique_ptr<TrainedMatrix>> matrices;
  for (const auto& [name, weight] : start_) matrices[name] = std::make_unique<Worse>(weight);
  const BlockTrained trained = TrainBlock({7, 1, "test"}, &loss, matrices, &best);
  EXPECT_EQ(trained.step, 0);
  EXPECT_EQ(trained.loss, trained.loss_before);
  for (const auto& [name, weight] : best)
    EXPECT_TRUE(at::equal(weight.scales.scale_RC, start_.at(name).scales.scale_RC)) << name;
}

TEST_F(BlockTrainingTest, StopsOnASignal) {
  const at::NoGradGuard no_grad;
  InstallStopSignals();
  BlockLoss loss = Loss();
  LayerWeights best = start_;
  ::raise(SIGTERM);
  EXPECT_THROW(TrainBlock({5, 1, "test"}, &loss, Matrices(true), &best), StoppedError);
  ClearStopRequest();
}

}  // namespace
}  // namespace tern::ptq
