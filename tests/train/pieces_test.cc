// The parts of a training step that are pure or small: schedules, loss scaling, fault policy,
// AdamW, the choice of attention.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>

#include "base/error.h"
#include "train/attention_backend.h"
#include "train/faults.h"
#include "train/health.h"
#include "train/loss_scaler.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace tern::train {
namespace {

TEST(ScheduleTest, TwoStageFallsToTheSecondRateAtTheSwitch) {
  recipe::ScheduleConfig s;  // 1.5e-3 -> 1e-3 at half, then to 0.
  EXPECT_DOUBLE_EQ(LearningRate(s, 0, 1000), 1.5e-3);
  EXPECT_DOUBLE_EQ(LearningRate(s, 250, 1000), 1.25e-3);
  EXPECT_DOUBLE_EQ(LearningRate(s, 500, 1000), 1e-3);
  EXPECT_DOUBLE_EQ(LearningRate(s, 750, 1000), 0.5e-3);
  EXPECT_NEAR(LearningRate(s, 999, 1000), 2e-6, 1e-12);
}

TEST(ScheduleTest, WarmupIsLinearAndMeetsTheSchedule) {
  recipe::ScheduleConfig s;
  s.kind = recipe::ScheduleKind::kConstant;
  s.warmup_steps = 4;
  for (int64_t step = 0; step < 4; ++step)
    EXPECT_DOUBLE_EQ(LearningRate(s, step, 100), 1.5e-3 * double(step + 1) / 5);
  EXPECT_DOUBLE_EQ(LearningRate(s, 4, 100), 1.5e-3);
}

TEST(ScheduleTest, OtherKindsHitTheirEnds) {
  recipe::ScheduleConfig s;
  s.final_lr = 1e-4;
  for (const auto kind :
       {recipe::ScheduleKind::kCosine, recipe::ScheduleKind::kLinear, recipe::ScheduleKind::kWsd}) {
    s.kind = kind;
    EXPECT_NEAR(LearningRate(s, 0, 100000), 1.5e-3, 1e-9);
    EXPECT_NEAR(LearningRate(s, 99999, 100000), 1e-4, 1e-7);
  }
  EXPECT_DOUBLE_EQ(LearningRate(s, 79999, 100000), 1.5e-3) << "wsd is stable until the last fifth";
  s.kind = recipe::ScheduleKind::kCosine;
  EXPECT_NEAR(LearningRate(s, 50000, 100000), (1.5e-3 + 1e-4) / 2, 1e-12);
}

TEST(ScheduleTest, WeightDecayEndsAtItsShare) {
  recipe::OptimizerConfig optimizer;
  EXPECT_EQ(WeightDecay(optimizer, 499, 1000), 0.1);
  EXPECT_EQ(WeightDecay(optimizer, 500, 1000), 0.0);
  optimizer.weight_decay_until = 1.0;
  EXPECT_EQ(WeightDecay(optimizer, 999, 1000), 0.1);
}

TEST(LossScalerTest, BacksOffGrowsAndStopsAtTheFloor) {
  recipe::LossScalingConfig config;
  config.mode = recipe::ScalingMode::kDynamic;
  config.initial = 8;
  config.growth_interval = 3;
  LossScaler scaler(config);
  scaler.Update(true);
  EXPECT_EQ(scaler.scale(), 4);
  scaler.Update(false);
  scaler.Update(false);
  LossScaler copy(config);
  copy.Load(scaler.Save());
  for (LossScaler* s : {&scaler, &copy}) {
    s->Update(false);
    EXPECT_EQ(s->scale(), 8) << "third good step, across save and load";
  }
  scaler.Update(true);
  scaler.Update(true);
  scaler.Update(true);
  EXPECT_THROW(scaler.Update(true), NumericError);
}

TEST(LossScalerTest, StaticAndOffNeverMove) {
  recipe::LossScalingConfig config;
  EXPECT_EQ(LossScaler(config).scale(), 1);
  config.mode = recipe::ScalingMode::kStatic;
  config.initial = 128;
  LossScaler scaler(config);
  scaler.Update(true);
  EXPECT_EQ(scaler.scale(), 128);
}

TEST(FaultMonitorTest, PolicyDecides) {
  recipe::FaultPolicy policy;
  EXPECT_THROW(FaultMonitor(policy).Check(NAN, 1), NumericError);
  EXPECT_THROW(FaultMonitor(policy).Check(1, INFINITY), NumericError);
  policy.nonfinite = recipe::FaultAction::kRollback;
  policy.max_events = 2;
  FaultMonitor monitor(policy);
  EXPECT_FALSE(monitor.Check(2, 1));
  EXPECT_EQ(monitor.Check(NAN, 1)->action, recipe::FaultAction::kRollback);
  EXPECT_TRUE(monitor.Check(NAN, 1));
  EXPECT_THROW(monitor.Check(NAN, 1), NumericError) << "more than max_events";
}

TEST(FaultMonitorTest, FindsASpikeAboveTheRunningMean) {
  recipe::FaultPolicy policy;
  policy.spike_sigmas = 6;
  FaultMonitor monitor(policy);
  for (int i = 0; i < 64; ++i) EXPECT_FALSE(monitor.Check(3.0 + 0.01 * (i % 2), 1));
  EXPECT_EQ(monitor.Check(4.0, 1)->action, recipe::FaultAction::kSkip);
  EXPECT_FALSE(monitor.Check(3.01, 1)) << "the spike did not enter the mean";
}

TEST(LayerKindTest, IsTheLastPartOfTheName) {
  EXPECT_EQ(LayerKind("model.layers.3.self_attn.q_proj.weight"), "q_proj");
}

// AdamW written out in fp64 (arXiv 1711.05101, algorithm 2, with the usual bias correction).
// What libtorch itself says it would run: 0 math, 1 flash (its enum SDPBackend).
TEST(AttentionBackendTest, TheChoiceReachesLibtorch) {
  const at::Tensor q = at::ones({1, 2, 8, 16});
  const auto chosen = [&](recipe::AttentionBackend backend) {
    SelectAttention(backend, "train.attention");
    return at::_fused_sdp_choice(q, q, q, {}, /*dropout_p=*/0.0, /*is_causal=*/true);
  };
  EXPECT_EQ(chosen(recipe::AttentionBackend::kMath), 0);
  EXPECT_EQ(chosen(recipe::AttentionBackend::kFlash), 1);
  EXPECT_EQ(chosen(recipe::AttentionBackend::kMath), 0);
  EXPECT_EQ(chosen(recipe::AttentionBackend::kAuto), 1);
  EXPECT_THROW(chosen(recipe::AttentionBackend::kCudnn), ResourceError);
  EXPECT_THROW(chosen(recipe::AttentionBackend::kMemoryEfficient), ResourceError);
}

TEST(AdamWTest, FollowsTheFormulaWithClippingAndScaling) {
  recipe::OptimizerConfig config;
  config.clip_norm = 1.0;
  std::vector<model::Parameter> parameters;
  for (const ParameterRole role : {ParameterRole::kLinear, ParameterRole::kNorm}) {
    parameters.push_back(
        {{"p", {3}, role}, at::tensor({1.0f, -2.0f, 3.0f}).set_requires_grad(true)});
  }
  AdamW optimizer(parameters, config);
  double w[2][3] = {{1, -2, 3}, {1, -2, 3}}, m[3] = {}, v[3] = {};
  const double g[3] = {0.5, -1.5, 2.0};
  const double scale = 64, lr = 0.01, decay = 0.1;
  for (int step = 1; step <= 3; ++step) {
    for (auto& parameter : parameters)
      parameter.value.mutable_grad() = at::tensor({0.5f, -1.5f, 2.0f}) * scale;
    const double norm = NormOf(optimizer.GradSquares(), scale);
    EXPECT_NEAR(norm, std::sqrt(2 * (0.25 + 2.25 + 4.0)), 1e-6);
    optimizer.Step(lr, decay, norm, scale);
    optimizer.ZeroGrad();
    for (int i = 0; i < 3; ++i) {
      const double clipped = g[i] / norm;
      m[i] = 0.9 * m[i] + 0.1 * clipped;
      v[i] = 0.95 * v[i] + 0.05 * clipped * clipped;
      const double update = (m[i] / (1 - std::pow(0.9, step))) /
                            (std::sqrt(v[i] / (1 - std::pow(0.95, step))) + 1e-8);
      for (int p = 0; p < 2; ++p) w[p][i] = w[p][i] * (1 - lr * (p == 0 ? decay : 0)) - lr * update;
    }
    for (int p = 0; p < 2; ++p) {
      for (int i = 0; i < 3; ++i) EXPECT_NEAR(parameters[p].value[i].item<double>(), w[p][i], 2e-6);
    }
  }
}

// A factor of a parameter is that of its rate: the bits of a training at that rate. 0 keeps it.
TEST(AdamWTest, ALearningRateFactorIsThatOfOneParameter) {
  const auto trained = [](double factor, double lr) {
    std::vector<model::Parameter> parameters;
    for (const double own : {1.0, factor}) {
      parameters.push_back({{"p", {3}, ParameterRole::kNorm},
                            at::tensor({1.0f, -2.0f, 3.0f}).set_requires_grad(true),
                            own});
    }
    AdamW optimizer(parameters, {});
    for (int step = 0; step < 3; ++step) {
      for (auto& parameter : parameters)
        parameter.value.mutable_grad() = at::tensor({0.5f, -1.5f, 2.0f}) * (step + 1);
      optimizer.Step(lr, 0.1, 0.5, 1);
      optimizer.ZeroGrad();
    }
    return std::pair(parameters[0].value.detach(), parameters[1].value.detach());
  };
  const auto [plain, scaled] = trained(0.25, 0.01);
  EXPECT_TRUE(at::equal(scaled, trained(1, 0.0025).second));
  EXPECT_TRUE(at::equal(plain, trained(1, 0.01).first));
  EXPECT_FALSE(at::equal(plain, scaled));
  EXPECT_TRUE(at::equal(trained(0, 0.01).second, at::tensor({1.0f, -2.0f, 3.0f})));
}

}  // namespace
}  // namespace tern::train
