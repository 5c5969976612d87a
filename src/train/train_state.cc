// See train_state.h.
#include "train/train_state.h"

#include <ATen/core/grad_mode.h>
#include <torch/version.h>

#include "arch/model_config_json.h"
#include "base/error.h"
#include "model/checkpoint_io.h"
#include "qat/quantized_model.h"
#include "train/train.h"

namespace tern::train {
namespace {

std::string Moment(std::string_view group, const model::Parameter& parameter) {
  return StrCat(group, parameter.spec.name);
}

template <class T>
T Field(const nlohmann::json& json, const char* key, const std::string& path) {
  try {
    return json.at(key).get<T>();
  } catch (const nlohmann::json::exception& error) {
    throw FormatError(StrCat(path, ": state.", key, ": ", error.what()));
  }
}

}  // namespace

TrainState::TrainState(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                       const std::vector<model::Parameter>& more)
    : decoder(recipe.model),
      extra(more),
      optimizer(AllParameters(), stage.optimizer),
      scaler(stage.loss_scaling),
      faults(stage.faults) {}

std::vector<model::Parameter> TrainState::AllParameters() const {
  std::vector<model::Parameter> all = decoder.parameters();
  all.insert(all.end(), extra.begin(), extra.end());
  return all;
}

std::string SaveTrainState(const TrainState& state, const std::string& folder,
                           const std::string& resolved_recipe, int64_t seed,
                           const nlohmann::json& quantize) {
  checkpoint::CheckpointMeta meta;
  meta.step = state.step;
  if (state.evaluated_step == state.step) meta.metrics[kValidationLoss] = state.validation_loss;
  meta.state = {{"model", ToJson(state.decoder.config())},
                {"scaler", state.scaler.Save()},
                {"faults", state.faults.Save()},
                {"num_updates", state.optimizer.num_updates()},
                {"data_offset", state.data_offset},
                {"loss", state.loss},
                {"evaluated_step", state.evaluated_step},
                {"validation_loss", state.validation_loss},
                {"seed", seed},
                {"recipe", resolved_recipe},
                {qat::kQuantizeState, quantize},
                {"versions", {{"tern", TERN_VERSION}, {"libtorch", TORCH_VERSION}}}};
  std::vector<checkpoint::TensorView> tensors = model::ParameterViews(state.decoder);
  for (const model::Parameter& parameter : state.extra)
    tensors.push_back(model::ViewOf(Moment(qat::kExtraGroup, parameter), parameter.value));
  const std::vector<model::Parameter> parameters = state.AllParameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    tensors.push_back(model::ViewOf(Moment(checkpoint::kExpAvgGroup, parameters[i]),
                                    state.optimizer.exp_avg()[i]));
    tensors.push_back(model::ViewOf(Moment(checkpoint::kExpAvgSqGroup, parameters[i]),
                                    state.optimizer.exp_avg_sq()[i]));
  }
  return checkpoint::WriteCheckpoint(folder, meta, tensors);
}

void LoadTrainState(const checkpoint::CheckpointReader& reader, TrainState* state) {
  const nlohmann::json& json = reader.meta().state;
  const std::string& path = reader.folder();
  model::ReadParameters(reader, state->decoder);
  for (const model::Parameter& parameter : state->extra)
    model::ReadInto(reader, Moment(qat::kExtraGroup, parameter), parameter.value);
  const std::vector<model::Parameter> parameters = state->AllParameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    model::ReadInto(reader, Moment(checkpoint::kExpAvgGroup, parameters[i]),
                    state->optimizer.exp_avg()[i]);
    model::ReadInto(reader, Moment(checkpoint::kExpAvgSqGroup, parameters[i]),
                    state->optimizer.exp_avg_sq()[i]);
  }
  state->optimizer.set_num_updates(Field<int64_t>(json, "num_updates", path));
  state->scaler.Load(Field<nlohmann::json>(json, "scaler", path));
  state->faults.Load(Field<nlohmann::json>(json, "faults", path));
  state->step = reader.meta().step;
  state->data_offset = Field<int64_t>(json, "data_offset", path);
  state->loss = Field<double>(json, "loss", path);
  state->evaluated_step = Field<int64_t>(json, "evaluated_step", path);
  state->validation_loss = Field<double>(json, "validation_loss", path);
}

}  // namespace tern::train
