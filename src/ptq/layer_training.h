// What quantizing a layer does after its matrices have codes, when it is asked for: AutoRound or
// Block-AP, then the distillation of scales (block_training.h), both against the float layer's
// outputs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json.hpp>

#include "nn/fused_ops.h"
#include "ptq/block_training.h"
#include "ptq/quantize_model.h"

namespace tern::ptq {

// True when the options ask for it.
bool TrainsLayers(const QuantizeOptions& options);

class LayerTraining {
 public:
  // floats: the layer's tensors as they were; x_BTD: its inputs, copied. Holds those and the float
  // layer's outputs: 8 D bytes a token.
  LayerTraining(const ModelConfig& config, const nn::RopeTables& rope,
                const BlockPass::Tensors& floats, const at::Tensor& x_BTD,
                ActivationRoom room = {});

  // tensors: the layer's, whose vectors are those stored. w: the matrices before they were rounded.
  // weights: their codes, which are trained. Returns what the ledger says of each of them.
  nlohmann::json Run(int64_t layer, const QuantizeOptions& options,
                     const BlockPass::Tensors& tensors, const BlockPass::Tensors& w,
                     LayerWeights* weights) const;

  // Replaces x_BTD by the outputs that the layer now has for the inputs.
  void WriteOutputs(const BlockPass::Tensors& tensors, at::Tensor* x_BTD) const;

 private:
  const ModelConfig& config_;
  const nn::RopeTables& rope_;
  ActivationRoom room_;
  at::Tensor x_BTD_, target_BTD_;
};

}  // namespace tern::ptq
