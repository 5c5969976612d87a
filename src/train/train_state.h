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
#include "train/sharding.h"

namespace tern::train {

struct TrainState {
  // group: null for one process. `extra`: what is trained beside the decoder (projections of
  // distillation); saved with it. REQUIRES: one process when there is any.
  TrainState(const recipe::Recipe& recipe, const recipe::TrainStage& stage, parallel::Group* group,
             const std::vector<model::Parameter>& extra = {});

  model::Decoder decoder;
  std::vector<model::Parameter> extra;
  Sharding sharding;  // What of the decoder is this rank's
  // What this rank updates: its part of the decoder's, then the extra ones; the optimizer's order.
  std::vector<model::Parameter> Trained() const;
  AdamW optimizer;
  LossScaler scaler;
  FaultMonitor faults;
  int64_t step = 0;             // Updates done, skipped ones included
  int64_t data_offset = 0;      // Steps of data passed over by roll-backs
  double loss = 0;              // Of the last step
  int64_t evaluated_step = -1;  // Last step whose evaluation is complete
  double validation_loss = 0;   // Of that evaluation
};

// Writes step-XXXXXXXX into `folder`; returns its path. With a group every rank writes its part at
// once; when one cannot (disk full), nothing of the checkpoint stays and all throw, naming it.
// `quantize`: QuantizedModel::ToJson.
std::string SaveTrainState(const TrainState& state, const std::string& folder,
                           const std::string& resolved_recipe, int64_t seed, parallel::Group* group,
                           const nlohmann::json& quantize = nlohmann::json::object());

// Reads what this rank needs, whatever number of ranks and strategy wrote it. Throws FormatError /
// InputError when the checkpoint is damaged or holds another model.
void LoadTrainState(const checkpoint::CheckpointReader& reader, TrainState* state);

}  // namespace tern::train
