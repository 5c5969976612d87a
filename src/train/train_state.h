// Everything a train stage needs to go on to the same bits, and its way into and out of a
// checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "distill/balance.h"
#include "model/decoder.h"
#include "recipe/recipe.h"
#include "train/faults.h"
#include "train/loss_scaler.h"
#include "train/optimizer.h"
#include "train/sharding.h"

namespace tern::train {

struct TrainState {
  // group: null for one process. `extra`: what is trained beside the decoder (projections of
  // distillation, learned scales, adapters), the same on all ranks; saved with it. device: in whose
  // memory parameters, gradients and moments are.
  TrainState(const recipe::Recipe& recipe, const recipe::TrainStage& stage, parallel::Group* group,
             const std::vector<model::Parameter>& extra = {}, const at::Device& device = at::kCPU);

  model::Decoder decoder;
  std::vector<model::Parameter> extra;
  Sharding sharding;  // What of the decoder is this rank's
  // What this rank updates: its part of the decoder's, then the extra ones; the optimizer's order.
  std::vector<model::Parameter> Trained() const;
  AdamW optimizer;
  LossScaler scaler;
  FaultMonitor faults;
  distill::LossBalance balance;
  int64_t step = 0;             // Updates done, skipped ones included
  int64_t data_offset = 0;      // Steps of data passed over by roll-backs
  double loss = 0;              // Of the last step
  int64_t evaluated_step = -1;  // Last step whose evaluation is complete
  double validation_loss = 0;   // Of that evaluation
};

struct SaveOptions {
  std::string folder;           // Where step-XXXXXXXX goes
  std::string resolved_recipe;  // Kept in the checkpoint
  int64_t seed = 0;
  parallel::Group* group = nullptr;
  nlohmann::json quantize = nlohmann::json::object();  // QuantizedModel::ToJson
  bool copy = false;  // Of every tensor, so that the state may change while Write runs elsewhere
};

// One checkpoint on its way to disk, in three steps: what is to be saved, this rank's bytes, the
// name. With a group all ranks make it and finish it together.
class Saving {
 public:
  Saving(const TrainState& state, const SaveOptions& options);

  int64_t step() const { return meta_.step; }
  // Speaks to no other rank. Throws ResourceError of a single process (disk full); a rank among
  // several keeps it for Finish.
  void Write();
  // Returns the path. When one rank could not write, nothing
  // of the checkpoint stays and all throw, naming it.
  std::string Finish();

 private:
  // What all ranks say of their parts.
  std::vector<checkpoint::PartFile> GatherParts();

  std::string folder_;
  parallel::Group* group_;
  checkpoint::CheckpointMeta meta_;
  std::vector<at::Tensor> held_;  // Behind the views
  std::vector<checkpoint::PartView> views_;
  std::string part_folder_, path_;
  nlohmann::json written_;  // What this rank says of its part; "error" when it could not be written
};

// Reads what this rank needs, whatever number of ranks and strategy wrote it. Throws FormatError /
// InputError when the checkpoint is damaged or holds another model.
void LoadTrainState(const checkpoint::CheckpointReader& reader, TrainState* state);

}  // namespace tern::train
