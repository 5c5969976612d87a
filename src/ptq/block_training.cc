// See block_training.h.
#include "ptq/block_training.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "base/stop_signal.h"

namespace tern::ptq {
namespace {

// The rate falls to 0, so that the end is mostly the best; earlier looks cost a pass each.
constexpr int64_t kLooks = 3;
constexpr uint64_t kSeed = 0;

}  // namespace

BlockLoss::BlockLoss(const ModelConfig& config, const nn::RopeTables& rope,
                     BlockPass::Tensors tensors, at::Tensor x_BTD, at::Tensor target_BTD,
                     ActivationRoom room)
    : tensors_(std::move(tensors)),
      x_BTD_(std::move(x_BTD)),
      target_BTD_(std::move(target_BTD)),
      room_(std::move(room)),
      pass_(config, rope, tensors_, x_BTD_) {
  for (int64_t b = 0; b < sequences(); ++b) {
    power_ += (target_BTD_[b] - x_BTD_[b]).square().sum(at::kDouble).item<double>();
    Drop(b);
  }
  power_ = std::max(power_ / static_cast<double>(sequences()), 1e-30);
}

at::Tensor BlockLoss::SquaredError(int64_t sequence) const {
  return (pass_.Output(x_BTD_[sequence]) - target_BTD_[sequence]).square().sum();
}

void BlockLoss::Drop(int64_t sequence) const {
  room_.Drop(x_BTD_[sequence]);
  room_.Drop(target_BTD_[sequence]);
}

double BlockLoss::Of(const LayerWeights& weights) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, weight] : weights) tensors_.at(name) = quant::Dequantize(weight);
  const int64_t count = std::min(kWindows, sequences());
  double total = 0;
  for (int64_t i = 0; i < count; ++i) {
    total += SquaredError(i * sequences() / count).item<double>();
    Drop(i * sequences() / count);
  }
  return total / (static_cast<double>(count) * power_);
}

double BlockLoss::AddGradients(const BlockPass::Tensors& values, int64_t sequence,
                               BlockPass::Tensors* gradients) {
  const at::AutoGradMode grad(true);
  for (const auto& [name, value] : values) tensors_.at(name) = value.detach().requires_grad_(true);
  const at::Tensor loss = SquaredError(sequence) / power_;
  loss.backward();
  Drop(sequence);
  for (const auto& [name, value] : values) {
    at::Tensor& leaf = tensors_.at(name);
    at::Tensor& sum = (*gradients)[name];
    sum = sum.defined() ? sum.add_(leaf.grad()) : leaf.grad();
    leaf = value;
  }
  return loss.item<double>();
}

BlockTrained TrainBlock(const BlockTraining& training, BlockLoss* loss,
                        const std::map<std::string, std::unique_ptr<TrainedMatrix>>& matrices,
                        LayerWeights* best) {
  BlockTrained result;
  result.loss = result.loss_before = loss->Of(*best);
  RandomStream order(kSeed, training.stream);
  const auto sequences = static_cast<uint64_t>(loss->sequences());
  for (int64_t step = 0; step < training.steps; ++step) {
    if (StopRequested()) {
      throw StoppedError(StrCat("stopped by ", SignalName(StopSignal()),
                                " within a layer; the layers before it are kept: run again to go "
                                "on"));
    }
    BlockPass::Tensors values, gradients;
    for (const auto& [name, matrix] : matrices) values[name] = matrix->Values();
    for (int64_t i = 0; i < training.batch; ++i) {
      const auto at = static_cast<uint64_t>(step * training.batch + i);
      const uint64_t sequence = PermuteIndex(at % sequences, sequences, order.At(at / sequences));
      loss->AddGradients(values, static_cast<int64_t>(sequence), &gradients);
    }
    const double rate = 1 - static_cast<double>(step) / static_cast<double>(training.steps);
    for (const auto& [name, matrix] : matrices) matrix->Step(gradients.at(name), rate);
    if ((step + 1) * kLooks / training.steps == step * kLooks / training.steps) continue;
    LayerWeights now;
    for (const auto& [name, matrix] : matrices) now[name] = matrix->Weight();
    const double found = loss->Of(now);
    if (found < result.loss) {
      result.loss = found;
      result.step = step + 1;
      *best = std::move(now);
    }
  }
  return result;
}

}  // namespace tern::ptq
