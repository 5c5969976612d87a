// One layer: its matrices to codes by the chosen method, with a ledger line each.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nn/fused_ops.h"
#include "ptq/block_pass.h"
#include "ptq/layer_training.h"
#include "ptq/packed_tensors.h"
#include "ptq/quantize_model.h"

namespace tern::ptq {

struct LayerResult {
  std::vector<NamedTensor> tensors;
  std::vector<nlohmann::json> ledger;
};

class LayerQuantizer {
 public:
  // `mixed`: the scheme of each matrix, those of a step alike; null: `scheme` for all.
  LayerQuantizer(const ModelConfig& config, const Scheme& scheme, const QuantizeOptions& options,
                 const SchemeMap* mixed = nullptr, ActivationRoom room = {});

  // `tensors`: of the layer, by name within it; its matrices become their dequantized values.
  // `x_BTD`: what the layer gets of the calibration, replaced by what the next one gets; undefined:
  // no calibration. Throws NumericError (tensor) for weights that are not finite.
  LayerResult Run(int64_t layer, BlockPass::Tensors* tensors, at::Tensor x_BTD);

 private:
  // Inputs of a step: their Hessian, and a sample of them.
  struct Seen {
    at::Tensor h_KK, x_MK;  // Undefined without a calibration
    int64_t tokens = 0;
    float amax = 0;       // Largest input
    double exponent = 0;  // Of the channel scales; 0: none
  };
  Seen See(BlockPass* pass, Step step) const;
  const Scheme& SchemeOf(const std::string& prefix, Step step) const;
  // Scales the columns of a step's inputs where something before them can take the inverse.
  void ScaleChannels(const std::string& prefix, Step step, const quant::RangeSearch& range,
                     BlockPass* pass, BlockPass::Tensors* tensors, Seen* seen) const;
  // Of matrices to be `scheme`, with s folded into `before`: a gain, or the rows of a matrix.
  // Returns the exponent.
  double Fold(const Scheme& scheme, const std::vector<std::string>& matrices,
              const std::string& before, const Seen& seen, const quant::RangeSearch& range,
              BlockPass::Tensors* tensors, at::Tensor* s_K) const;
  // A matrix that has codes, not packed yet.
  struct Quantized {
    std::string name;  // Within the layer
    Scheme scheme;
    at::Tensor w_NK;  // Before it was rounded
    Seen seen;
    quant::QuantizedWeight weight;
    nlohmann::json line;
  };
  Quantized QuantizeMatrix(const std::string& name, const at::Tensor& w_NK, const Seen& seen,
                           const quant::RangeSearch& range) const;
  // All matrices of the layer, each for the inputs that the ones before it give; the last step is
  // not finished.
  void QuantizeSteps(const std::string& prefix, BlockPass* pass, BlockPass::Tensors* tensors,
                     const std::function<void(Quantized)>& done);
  void Train(int64_t layer, const LayerTraining& training, BlockPass::Tensors* tensors,
             std::vector<Quantized>* matrices, at::Tensor* x_BTD) const;
  // value_NK: what the codes stand for.
  void Pack(const std::string& prefix, const at::Tensor& value_NK, Quantized* matrix,
            LayerResult* out) const;

  const ModelConfig& config_;
  Scheme scheme_;  // Of the step at hand
  const QuantizeOptions& options_;
  const SchemeMap* mixed_;
  nn::RopeTables rope_;
  ActivationRoom room_;
};

// How ranges are found: what a prediction (folder_budget.h) assumes, too.
quant::RangeSearch RangeOf(const QuantizeOptions& options);

// SHA-256 of fp32 values, zeros of both signs as one.
std::string Sha256OfValues(const float* values, int64_t count);

}  // namespace tern::ptq
