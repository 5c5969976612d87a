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

struct OwnedTensor {
  std::string name;
  at::Tensor value;  // Rows that this rank has, from the whole tensor's `first` on
  int64_t first = 0;
  std::vector<int64_t> shape;         // Of the whole
  std::pair<int64_t, int64_t> saved;  // Rows of the whole that this rank saves: first, number
};

// Parameters and moments that this rank has. owned: the decoder's values only as far as this rank
// updates them; else as the decoder has them.
std::vector<OwnedTensor> Tensors(const TrainState& state, bool owned) {
  std::vector<OwnedTensor> tensors;
  const auto& parameters = state.decoder.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const int64_t first = state.sharding.first_row(i);
    const std::vector<int64_t>& shape = parameters[i].spec.shape;
    const auto saved = state.sharding.RowsToSave(i);
    const bool rows = owned || state.sharding.holds_rows_only(i);
    tensors.push_back({StrCat(checkpoint::kModelGroup, parameters[i].spec.name),
                       rows ? state.sharding.owned()[i].value : parameters[i].value,
                       rows ? first : 0, shape, saved});
    tensors.push_back({Moment(checkpoint::kExpAvgGroup, parameters[i]),
                       state.optimizer.exp_avg()[i], first, shape, saved});
    tensors.push_back({Moment(checkpoint::kExpAvgSqGroup, parameters[i]),
                       state.optimizer.exp_avg_sq()[i], first, shape, saved});
  }
  for (size_t i = 0; i < state.extra.size(); ++i) {  // Of one process: never spread
    const std::vector<int64_t>& shape = state.extra[i].spec.shape;
    const std::pair<int64_t, int64_t> all = {0, shape[0]};
    const size_t moment = parameters.size() + i;
    tensors.push_back(
        {Moment(qat::kExtraGroup, state.extra[i]), state.extra[i].value, 0, shape, all});
    tensors.push_back({Moment(checkpoint::kExpAvgGroup, state.extra[i]),
                       state.optimizer.exp_avg()[moment], 0, shape, all});
    tensors.push_back({Moment(checkpoint::kExpAvgSqGroup, state.extra[i]),
                       state.optimizer.exp_avg_sq()[moment], 0, shape, all});
  }
  return tensors;
}

// What a rank says of its part; "error" when it could not be written.
nlohmann::json ToJson(const checkpoint::PartFile& part) {
  return {{"size_bytes", part.size_bytes}, {"sha256", part.sha256}, {"rows", part.rows}};
}

checkpoint::PartFile PartFromJson(const nlohmann::json& json) {
  return {json.at("size_bytes").get<int64_t>(), json.at("sha256").get<std::string>(),
          json.at("rows").get<std::vector<std::pair<int64_t, int64_t>>>()};
}

// Writes this rank's part, tells the others, and returns all parts. Throws on every rank when one
// of them failed.
std::vector<checkpoint::PartFile> WriteParts(const std::string& part_folder,
                                             const std::vector<checkpoint::PartView>& views,
                                             parallel::Group& group) {
  nlohmann::json mine;
  try {
    mine = ToJson(checkpoint::WritePart(part_folder, group.rank(), group.size(), views));
  } catch (const Error& error) {
    mine = {{"error", error.what()}};
  }
  const std::vector<std::string> texts = group.GatherTexts(mine.dump());
  std::vector<checkpoint::PartFile> parts;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    const nlohmann::json said = nlohmann::json::parse(texts[rank]);
    if (said.contains("error")) {
      if (group.is_root()) checkpoint::AbandonParts(part_folder);
      throw ResourceError(StrCat("rank ", rank, " cannot write its part of a checkpoint: ",
                                 said.at("error").get<std::string>(),
                                 ". The checkpoints before are untouched"));
    }
    parts.push_back(PartFromJson(said));
  }
  return parts;
}

std::string SaveByRanks(const std::string& folder, const checkpoint::CheckpointMeta& meta,
                        const TrainState& state, parallel::Group& group) {
  std::vector<checkpoint::PartView> views;
  for (const OwnedTensor& tensor : Tensors(state, /*owned=*/true)) {
    const auto [first, rows] = tensor.saved;
    checkpoint::PartView part;
    part.view = model::ViewOf(tensor.name, tensor.value.narrow(0, first - tensor.first, rows));
    part.first = first;
    part.all_rows = tensor.shape[0];
    views.push_back(std::move(part));
  }
  std::string part_folder, path;
  group.OnRoot([&] { part_folder = checkpoint::BeginParts(folder, meta.step); });
  part_folder = group.FromRoot(part_folder);
  const std::vector<checkpoint::PartFile> parts = WriteParts(part_folder, views, group);
  group.OnRoot([&] { path = checkpoint::FinishParts(folder, part_folder, meta, views, parts); });
  return group.FromRoot(path);
}

}  // namespace

TrainState::TrainState(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                       parallel::Group* group, const std::vector<model::Parameter>& more)
    : decoder(recipe.model),
      extra(more),
      sharding(group, recipe.parallel, &decoder),
      optimizer(Trained(), stage.optimizer),
      scaler(stage.loss_scaling),
      faults(stage.faults) {}

std::vector<model::Parameter> TrainState::Trained() const {
  std::vector<model::Parameter> all = sharding.owned();
  all.insert(all.end(), extra.begin(), extra.end());
  return all;
}

std::string SaveTrainState(const TrainState& state, const std::string& folder,
                           const std::string& resolved_recipe, int64_t seed, parallel::Group* group,
                           const nlohmann::json& quantize) {
  checkpoint::CheckpointMeta meta;
  meta.step = state.step;
  if (state.evaluated_step == state.step) meta.metrics[kValidationLoss] = state.validation_loss;
  meta.state = {{"model", tern::ToJson(state.decoder.config())},
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
  if (group != nullptr) return SaveByRanks(folder, meta, state, *group);
  std::vector<checkpoint::TensorView> tensors;
  for (const OwnedTensor& tensor : Tensors(state, /*owned=*/false)) {
    tensors.push_back(model::ViewOf(tensor.name, tensor.value));
  }
  return checkpoint::WriteCheckpoint(folder, meta, tensors);
}

void LoadTrainState(const checkpoint::CheckpointReader& reader, TrainState* state) {
  const nlohmann::json& json = reader.meta().state;
  const std::string& path = reader.folder();
  model::CheckModel(reader, state->decoder.config());
  for (const OwnedTensor& tensor : Tensors(*state, /*owned=*/false)) {
    TERN_CHECK(tensor.value.is_contiguous() && tensor.value.scalar_type() == at::kFloat,
               tensor.name);
    reader.ReadRows(tensor.name, h5::Type::kF32, tensor.shape, tensor.first, tensor.value.size(0),
                    tensor.value.data_ptr());
  }
  state->sharding.ValuesLoaded();
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
