// Everything a train stage needs to go on to the same bits, and its way into and out of a
// checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "model/decoder.h"
#include "recipe/recipe.h"
#include "train/faults.h"
#include "train/loss_scaler.h"
#include "train/optimizer.h"

namespace tern::train {

struct TrainState {
  // `extra`: what is trained beside the decoder (projections of distillation); saved with it.
  TrainState(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
             const std::vector<model::Parameter>& extra = {});

  // The decoder's parameters, then the extra ones: the optimizer's order.
  std::vector<model::Parameter> AllParameters() const;

  model::Decoder decoder;
  std::vector<model::Parameter> extra;
  AdamW optimizer;
  LossScaler scaler;
  FaultMonitor faults;
  int64_t step = 0;             // Updates done, skipped ones included
  int64_t data_offset = 0;      // Steps of data passed over by roll-backs
  double loss = 0;              // Of the last step
  int64_t evaluated_step = -1;  // Last step whose evaluation is complete
  double validation_loss = 0;   // Of that evaluation
};

// Writes step-XXXXXXXX into `folder`; returns its path. `quantize`: QuantizedModel::ToJson.
std::string SaveTrainState(const TrainState& state, const std::string& folder,
                           const std::string& resolved_recipe, int64_t seed,
                           const nlohmann::json& quantize = nlohmann::json::object());

// Throws FormatError / InputError when the checkpoint is damaged or holds another model.
void LoadTrainState(const checkpoint::CheckpointReader& reader, TrainState* state);

}  // namespace tern::train
