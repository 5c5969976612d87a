// See layer_training.h.
#include "ptq/layer_training.h"

#include "base/error.h"
#include "ptq/auto_round.h"
#include "ptq/block_ap.h"
#include "ptq/method.h"
#include "ptq/scale_training.h"

namespace tern::ptq {

bool TrainsLayers(const QuantizeOptions& options) {
  return MethodTrains(options.method) || options.scale_steps > 0;
}

LayerTraining::LayerTraining(const ModelConfig& config, const nn::RopeTables& rope,
                             const BlockPass::Tensors& floats, const at::Tensor& x_BTD,
                             ActivationRoom room)
    : config_(config),
      rope_(rope),
      room_(std::move(room)),
      x_BTD_(room_.New(x_BTD.sizes().vec())),
      target_BTD_(room_.New(x_BTD.sizes().vec())) {
  for (int64_t b = 0; b < x_BTD.size(0); ++b) {
    x_BTD_[b].copy_(x_BTD[b]);
    room_.Drop(x_BTD[b]);
    room_.Drop(x_BTD_[b]);
  }
  WriteOutputs(floats, &target_BTD_);
}

nlohmann::json LayerTraining::Run(int64_t layer, const QuantizeOptions& options,
                                  const BlockPass::Tensors& tensors, const BlockPass::Tensors& w,
                                  LayerWeights* weights) const {
  BlockLoss loss(config_, rope_, tensors, x_BTD_, target_BTD_, room_);
  nlohmann::json line;
  std::map<std::string, std::unique_ptr<TrainedMatrix>> matrices;
  if (MethodTrains(options.method)) {
    for (const auto& [name, weight] : *weights) {
      matrices[name] = options.method == "block_ap"
                           ? BlockAp(w.at(name), weight, options.block_ap)
                           : AutoRound(w.at(name), weight, options.layer_steps);
    }
    const BlockTrained trained =
        TrainBlock({options.layer_steps, options.batch, StrCat(options.method, " ", layer)}, &loss,
                   matrices, weights);
    line["block_error_before"] = trained.loss_before;
    line["block_error"] = trained.loss;
    line["kept_step"] = trained.step;
    if (trained.step == 0) {
      line["method"] = "rtn";
      line["fallback"] =
          "no step of the training had a lower error of the layer; rounded to nearest";
    }
  }
  if (options.scale_steps > 0) {
    for (const auto& [name, weight] : *weights) matrices[name] = TrainScales(weight);
    const BlockTrained trained = TrainBlock(
        {options.scale_steps, options.batch, StrCat("scales ", layer)}, &loss, matrices, weights);
    if (!line.contains("block_error_before")) line["block_error_before"] = trained.loss_before;
    line["block_error"] = trained.loss;
    line["kept_scale_step"] = trained.step;
  }
  return line;
}

void LayerTraining::WriteOutputs(const BlockPass::Tensors& tensors, at::Tensor* x_BTD) const {
  const BlockPass pass(config_, rope_, tensors, x_BTD_);
  for (int64_t b = 0; b < x_BTD_.size(0); ++b) {
    (*x_BTD)[b].copy_(pass.Output(x_BTD_[b]));
    room_.Drop((*x_BTD)[b]);
    room_.Drop(x_BTD_[b]);
  }
}

}  // namespace tern::ptq
