// Training of what the matrices of one decoder layer are quantized to, so that the layer's output
// is that of the float layer for the same inputs: those that the quantized layers before it give.
// What is trained in a matrix is its own business (auto_round.h, block_ap.h, scale_training.h); the
// loop, the loss and the choice of the best are here. The result is never worse than where it
// started.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "ptq/block_pass.h"
#include "quant/weight_quantizer.h"

namespace tern::ptq {

// By name within the layer: "self_attn.q_proj.weight".
using LayerWeights = std::map<std::string, quant::QuantizedWeight>;

// How far a layer's outputs are from those wanted: sum |y - target|^2 / sum |target - x|^2, the
// lost part of the power of what the layer adds to its input.
class BlockLoss {
 public:
  // `tensors`: of the layer; its matrices are those of the calls. x_BTD: inputs, target_BTD:
  // outputs wanted.
  BlockLoss(const ModelConfig& config, const nn::RopeTables& rope, BlockPass::Tensors tensors,
            at::Tensor x_BTD, at::Tensor target_BTD, ActivationRoom room = {});
  BlockLoss(const BlockLoss&) = delete;
  BlockLoss& operator=(const BlockLoss&) = delete;

  // Over at most kWindows sequences, spread evenly.
  double Of(const LayerWeights& weights);
  // The loss of one sequence, whose gradients to the matrices' values are added to `gradients`
  // (empty at first). `values`: fp32 [N, K].
  double AddGradients(const BlockPass::Tensors& values, int64_t sequence,
                      BlockPass::Tensors* gradients);
  int64_t sequences() const { return x_BTD_.size(0); }

  static constexpr int64_t kWindows = 32;

 private:
  at::Tensor SquaredError(int64_t sequence) const;  // Scalar
  void Drop(int64_t sequence) const;

  BlockPass::Tensors tensors_;
  at::Tensor x_BTD_, target_BTD_;
  ActivationRoom room_;
  double power_ = 0;  // Mean over the sequences
  BlockPass pass_;
};

// What is trained in a matrix.
class TrainedMatrix {
 public:
  virtual ~TrainedMatrix() = default;
  // As it would be stored now.
  virtual quant::QuantizedWeight Weight() const = 0;
  // Its values, which are Dequantize(Weight()).
  virtual at::Tensor Values() = 0;
  // gradient_NK: of the loss by Values(), of the last call. `rate` falls from 1 to 0.
  virtual void Step(const at::Tensor& gradient_NK, double rate) = 0;
};

// The groups of the rows of a matrix that share a scale: a view [N, G, S] of x_NK for scales [N,
// G].
inline at::Tensor GroupsOf(const at::Tensor& x_NK, const at::Tensor& scale_NG) {
  return x_NK.view({scale_NG.size(0), scale_NG.size(1), -1});
}

struct BlockTraining {
  int64_t steps = 0;
  int64_t batch = 1;   // Sequences a step
  std::string stream;  // Names their random order
};

struct BlockTrained {
  double loss_before = 0, loss = 0;
  int64_t step = 0;  // After which the best was found; 0: the start was not surpassed
};

// `best`: where training starts; replaced by the weights with the least loss of those seen at equal
// distances on the way, if it is less. Throws StoppedError on a stop signal.
BlockTrained TrainBlock(const BlockTraining& training, BlockLoss* loss,
                        const std::map<std::string, std::unique_ptr<TrainedMatrix>>& matrices,
                        LayerWeights* best);

}  // namespace tern::ptq
