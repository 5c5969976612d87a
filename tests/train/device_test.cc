// The trainer on a device that is not the CPU (tests/testing/other_device.h): it follows no raw
// pointer, mixes no devices, and computes what it computes on the CPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/stop_signal.h"
#include "checkpoint/checkpoint.h"
#include "metrics/metrics_log.h"
#include "tests/testing/other_device.h"
#include "tests/testing/temp_folder.h"
#include "tests/train/tiny_run.h"
#include "train/step.h"
#include "train/train.h"
#include "train/train_state.h"

namespace tern::train {
namespace {

using tern::testing::kOther;

class DeviceSlowTest : public ::testing::Test {
 protected:
  DeviceSlowTest() : tokens_(Tokens()) {
    ClearStopRequest();
    stage_.precision = recipe::Precision::kFp32;
    stage_.steps = 6;
  }

  void Train(const std::string& name, const at::Device& device, int64_t steps,
             distill::Teacher* teacher = nullptr) {
    const std::string folder = folder_ / name;
    std::filesystem::create_directories(folder);
    Journal journal(folder + "/journal.jsonl");
    recipe::TrainStage stage = stage_;
    stage.steps = steps;
    TrainJob job{recipe_, stage, folder + "/train", folder, tokens_, journal, "recipe text", 0};
    job.device = device;
    job.teacher = teacher;
    train::Train(job);
  }

  std::vector<MetricsRecord> Records(const std::string& name) {
    return ReadMetrics(folder_ / (name + "/metrics.jsonl"));
  }

  // Both round in fp32 in other orders: each step's loss differs by a few units of rounding of the
  // sums in it (at most some 1e-6), and AdamW, which divides by the gradients' size, carries that
  // on with a factor near 1 at first; quantization can move single codes by one level at a later
  // step, worth their share of a matrix: 1e-3 for one of a thousand.
  void ExpectSameLosses(const std::string& name, const std::string& of) {
    const auto found = Records(name), want = Records(of);
    ASSERT_EQ(found.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      const double loss = want[i].values["loss"];
      EXPECT_NEAR(found[i].values["loss"].get<double>(), loss, (i == 0 ? 1e-6 : 1e-3) * loss) << i;
      EXPECT_EQ(found[i].values["data_hash"], want[i].values["data_hash"]);
    }
  }

  tern::testing::TempFolder folder_;
  recipe::Recipe recipe_ = TinyRecipe();
  recipe::TrainStage stage_ = TinyStage();
  data::TokenFile tokens_;
};

TEST_F(DeviceSlowTest, TrainsEvaluatesAndSavesAsOnTheCpu) {
  Train("cpu", at::kCPU, 6);
  Train("other", kOther, 6);
  ExpectSameLosses("other", "cpu");
  for (const char* key : {"validation_loss", "health"})
    EXPECT_TRUE(Records("other")[3].values.contains(key)) << key;
}

TEST_F(DeviceSlowTest, TrainsInBf16WithCheckpointedBlocksOfDocuments) {
  stage_.precision = recipe::Precision::kBf16;
  stage_.activation_checkpointing = recipe::ActivationCheckpointing::kBlock;
  stage_.micro_batch = 2;
  recipe_.data.packing = recipe::Packing::kDocuments;
  recipe_.model.sub_norms = SubNorms::kOutputs;
  recipe_.model.qk_norm = true;
  recipe_.model.activation = Activation::kRelu2;
  recipe_.model.tied_head = false;
  Train("cpu", at::kCPU, 3);
  Train("other", kOther, 3);
  // Before the first update. The device rounds attention's probabilities, too: 2^-9 of what they
  // weigh, in one of the two terms that a block adds.
  const auto want = Records("cpu").front().values["loss"].get<double>();
  EXPECT_NEAR(Records("other").front().values["loss"].get<double>(), want, 0x1p-8 * want);
}

// Moments in host memory: the same numbers, and checkpoints that go on with or without.
TEST_F(DeviceSlowTest, UpdatesInHostMemory) {
  stage_.schedule.kind = recipe::ScheduleKind::kConstant;
  stage_.optimizer.weight_decay_until = 1;
  Train("other", kOther, 6);
  stage_.optimizer.offload = true;
  const TrainState state(recipe_, stage_, nullptr, {}, kOther);
  for (const at::Tensor& moment : state.optimizer.exp_avg()) EXPECT_TRUE(moment.is_cpu());
  Train("offloaded", kOther, 3);
  stage_.optimizer.offload = false;
  Train("offloaded", kOther, 4);
  stage_.optimizer.offload = true;
  Train("offloaded", kOther, 6);
  ExpectSameLosses("offloaded", "other");
}

// A checkpoint knows no device: what one wrote the other goes on from, to the losses of a run that
// stayed.
TEST_F(DeviceSlowTest, CheckpointsGoFromDeviceToDevice) {
  // What does not depend on the number of steps, which grows between the starts.
  stage_.schedule.kind = recipe::ScheduleKind::kConstant;
  stage_.optimizer.weight_decay_until = 1;
  Train("cpu", at::kCPU, 6);
  Train("moved", kOther, 3);
  Train("moved", at::kCPU, 5);
  Train("moved", kOther, 6);
  ExpectSameLosses("moved", "cpu");
}

TEST_F(DeviceSlowTest, LearnsFromATeacherOnTheDevice) {
  model::Decoder teacher(recipe_.model);
  teacher.Initialize(/*seed=*/5);
  stage_.losses.forward_kl.weight.first = 1;
  stage_.losses.topk_kl.weight.first = 0.5;
  stage_.losses.topk_k = 8;
  stage_.losses.hidden.weight.first = 0.1;
  stage_.losses.relations.weight.first = 0.1;
  distill::DecoderTeacher here(teacher), moved(teacher.To(kOther));
  Train("cpu", at::kCPU, 3, &here);
  Train("other", kOther, 3, &moved);
  ExpectSameLosses("other", "cpu");
}

// Every kind of fake quantizer beside adapters and rounded inputs: the quantized weights have the
// CPU's bits (tests/quant/device_neutral_formats_test.cc), so the first losses differ by the
// products' rounding alone.
TEST_F(DeviceSlowTest, TrainsFakeQuantizersAndAdapters) {
  recipe_.model.linear = LinearKind::kDense;
  recipe_.model.hidden_size = 64;  // Groups of 64 divide all rows
  recipe_.model.intermediate_size = 128;
  recipe_.model.tied_head = false;
  const auto rule = [](const char* layers, recipe::WeightQuantizer weights) {
    recipe::QuantizeRule rule;
    rule.name = layers;
    rule.layers = {layers};
    rule.weights = weights;
    return rule;
  };
  using Weights = recipe::WeightQuantizer;
  using Inputs = recipe::InputQuantizer;
  std::vector<recipe::QuantizeRule> rules = {
      rule("*q_proj", Weights::kInt4),       rule("*k_proj", Weights::kSeq2),
      rule("*v_proj", Weights::kNvfp4),      rule("*o_proj", Weights::kFp8Block),
      rule("*gate_proj", Weights::kTernary), rule("*up_proj", Weights::kLsq3),
      rule("*down_proj", Weights::kQ4_0)};
  rules[0].symmetric = false;
  rules[0].rounding = recipe::Rounding::kStochastic;
  rules[3].clipped_gradient = true;
  rules[3].inputs = Inputs::kFp8Dynamic;
  rules[5].inputs = Inputs::kInt4Absmean;
  rules[5].hadamard = true;
  stage_.quantize.rules = rules;
  stage_.quantize.warmup_steps = 2;
  stage_.schedule.kind = recipe::ScheduleKind::kConstant;
  stage_.optimizer.weight_decay_until = 1;
  Train("cpu", at::kCPU, 4);
  Train("other", kOther, 4);
  ExpectSameLosses("other", "cpu");
  Train("other", at::kCPU, 6);  // What the device wrote the CPU goes on from
  EXPECT_EQ(Records("other").size(), 6u);
  stage_.lora.rank = 4;
  stage_.lora.layers = {"*gate_proj", "*q_proj", "*down_proj"};
  Train("cpu_adapters", at::kCPU, 4);
  Train("adapters", kOther, 4);
  ExpectSameLosses("adapters", "cpu_adapters");
}

// What is spread over ranks: one rank of four, the others faked.
TEST_F(DeviceSlowTest, SpreadsItsStateAsOnTheCpu) {
  recipe_.model.hidden_size = 64;
  recipe_.model.intermediate_size = 256;
  recipe_.model.vocab_size = 512;
  for (const recipe::Sharding shard : {recipe::Sharding::kZero1, recipe::Sharding::kZero3}) {
    recipe_.parallel.shard = shard;
    std::vector<double> losses;
    for (const at::Device device : {at::Device(at::kCPU), kOther}) {
      parallel::Topology topology;
      topology.world = topology.local_world = 4;
      topology.rank = topology.local_rank = 1;
      const auto group = parallel::Group::Fake(topology, device);
      TrainState state(recipe_, stage_, group.get(), {}, device);
      state.decoder.Initialize(1);
      state.sharding.ValuesLoaded();
      data::Batch batch;
      batch.batch = 4;
      batch.tokens = 16;
      for (int i = 0; i < 64; ++i) {
        batch.inputs.push_back(i);
        batch.targets.push_back(i + 1);
      }
      StepOptions options;
      options.rank = 1;
      options.ranks = 4;
      options.sharding = &state.sharding;
      for (int step = 0; step < 3; ++step) {
        losses.push_back(ForwardBackward(state.decoder, batch, options));
        const double norm =
            NormOf(state.sharding.SumSquares(state.optimizer.GradSquares()), options.loss_scale);
        state.optimizer.Step(1e-3, 0.1, norm, options.loss_scale);
        state.sharding.AfterUpdate();
        state.optimizer.ZeroGrad();
        state.sharding.DropGradients();
      }
    }
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(losses[i + 3], losses[i], 1e-3 * losses[i]) << i;
  }
}

}  // namespace
}  // namespace tern::train
