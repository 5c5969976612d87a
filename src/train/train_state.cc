// See train_state.h.
#include "train/train_state.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/version.h>

#include "arch/model_config_json.h"
#include "base/error.h"
#include "model/checkpoint_io.h"
#include "qat/quantized_model.h"
#include "recipe/check_parallel.h"
#include "recipe/frozen.h"
#include "train/train.h"

namespace tern::train {
namespace {

// Gradient norms of the losses; absent in checkpoints of versions that measured none.
constexpr const char* kBalance = "balance";

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
  at::Tensor value;                 // The part of the whole tensor that this rank has
  model::Place place;               // Where it begins
  std::vector<int64_t> shape;       // Of the whole
  std::optional<size_t> parameter;  // Of the decoder, whose ranks share the saving
};

// Parameters and moments that this rank has. owned: the decoder's values only as far as this rank
// updates them; else as the decoder has them.
std::vector<OwnedTensor> Tensors(const TrainState& state, bool owned) {
  std::vector<OwnedTensor> tensors;
  const auto& parameters = state.decoder.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Sharding& sharding = state.sharding;
    const model::Place place = sharding.owned_place(i);
    const std::vector<int64_t>& shape = parameters[i].spec.shape;
    tensors.push_back({StrCat(checkpoint::kModelGroup, parameters[i].spec.name),
                       owned ? sharding.owned()[i].value : parameters[i].value,
                       owned ? place : sharding.place(i), shape, i});
    if (!state.optimizer.exp_avg()[i].defined()) continue;  // Frozen
    tensors.push_back({Moment(checkpoint::kExpAvgGroup, parameters[i]),
                       state.optimizer.exp_avg()[i], place, shape, i});
    tensors.push_back({Moment(checkpoint::kExpAvgSqGroup, parameters[i]),
                       state.optimizer.exp_avg_sq()[i], place, shape, i});
  }
  for (size_t i = 0; i < state.extra.size(); ++i) {  // Never spread
    const std::vector<int64_t>& shape = state.extra[i].spec.shape;
    const size_t moment = parameters.size() + i;
    tensors.push_back(
        {Moment(qat::kExtraGroup, state.extra[i]), state.extra[i].value, {}, shape, {}});
    tensors.push_back({Moment(checkpoint::kExpAvgGroup, state.extra[i]),
                       state.optimizer.exp_avg()[moment],
                       {},
                       shape,
                       {}});
    tensors.push_back({Moment(checkpoint::kExpAvgSqGroup, state.extra[i]),
                       state.optimizer.exp_avg_sq()[moment],
                       {},
                       shape,
                       {}});
  }
  return tensors;
}

void ReadPart(const checkpoint::CheckpointReader& reader, const OwnedTensor& tensor) {
  const at::NoGradGuard no_grad;
  const at::Tensor& value = tensor.value;
  const int64_t rows = value.size(0);
  const bool by_columns = value.dim() == 2 && value.size(1) != tensor.shape[1];
  const at::Tensor whole = by_columns ? at::empty({rows, tensor.shape[1]}, at::kFloat) : value;
  model::FillThroughHost(whole, [&](void* data) {
    reader.ReadRows(tensor.name, h5::Type::kF32, tensor.shape, tensor.place.first_row, rows, data);
  });
  if (by_columns) value.copy_(whole.narrow(1, tensor.place.first_column, value.size(1)));
}

nlohmann::json ToJson(const checkpoint::PartFile& part) {
  return {{"size_bytes", part.size_bytes}, {"sha256", part.sha256}, {"rows", part.rows}};
}

checkpoint::PartFile PartFromJson(const nlohmann::json& json) {
  return {json.at("size_bytes").get<int64_t>(), json.at("sha256").get<std::string>(),
          json.at("rows").get<std::vector<std::pair<int64_t, int64_t>>>()};
}

model::Decoder DecoderFor(const ModelConfig& config, const recipe::TrainStage& stage,
                          const at::Device& device) {
  model::Decoder decoder(config, device);
  const std::vector<bool> frozen = recipe::FrozenParameters(stage, config);
  for (size_t i = 0; i < frozen.size(); ++i) {
    at::Tensor value = decoder.parameters()[i].value;  // A handle to the same tensor
    value.set_requires_grad(!frozen[i]);
  }
  return decoder;
}

}  // namespace

TrainState::TrainState(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                       parallel::Group* group, const std::vector<model::Parameter>& more,
                       const at::Device& device)
    : decoder(DecoderFor(recipe.model, stage, device)),
      extra(more),
      sharding(group, recipe.parallel, &decoder, recipe::HasLateGradients(stage)),
      optimizer(Trained(), stage.optimizer, recipe::FrozenParameters(stage, recipe.model)),
      scaler(stage.loss_scaling),
      faults(stage.faults),
      balance(stage.losses) {}

std::vector<model::Parameter> TrainState::Trained() const {
  std::vector<model::Parameter> all = sharding.owned();
  all.insert(all.end(), extra.begin(), extra.end());
  return all;
}

Saving::Saving(const TrainState& state, const SaveOptions& options)
    : folder_(options.folder), group_(options.group) {
  meta_.step = state.step;
  if (state.evaluated_step == state.step) meta_.metrics[kValidationLoss] = state.validation_loss;
  meta_.state = {{"model", tern::ToJson(state.decoder.config())},
                 {"scaler", state.scaler.Save()},
                 {"faults", state.faults.Save()},
                 {kBalance, state.balance.Save()},
                 {"num_updates", state.optimizer.num_updates()},
                 {"data_offset", state.data_offset},
                 {"loss", state.loss},
                 {"evaluated_step", state.evaluated_step},
                 {"validation_loss", state.validation_loss},
                 {"seed", options.seed},
                 {"recipe", options.resolved_recipe},
                 {qat::kQuantizeState, options.quantize},
                 {"versions", {{"tern", TERN_VERSION}, {"libtorch", TORCH_VERSION}}}};
  const at::NoGradGuard no_grad;
  for (const OwnedTensor& tensor : Tensors(state, /*owned=*/group_ != nullptr)) {
    const Sharding::SavedRows part =
        tensor.parameter ? state.sharding.RowsToSave(*tensor.parameter, tensor.value)
                         : state.sharding.RowsToSave(tensor.value);
    // What is on a device, or came together from slices, is a copy in any case.
    const bool clones =
        options.copy && part.rows.device().is_cpu() && part.rows.is_alias_of(tensor.value);
    held_.push_back(clones ? part.rows.detach().clone() : part.rows.detach().cpu());
    checkpoint::PartView view;
    view.view = model::ViewOf(tensor.name, held_.back());
    view.first = part.first;
    view.all_rows = tensor.shape[0];
    views_.push_back(std::move(view));
  }
  if (group_ == nullptr) return;
  group_->OnRoot([&] { part_folder_ = checkpoint::BeginParts(folder_, meta_.step); });
  part_folder_ = group_->FromRoot(part_folder_);
}

void Saving::Write() {
  if (group_ == nullptr) {
    std::vector<checkpoint::TensorView> tensors;
    for (const checkpoint::PartView& part : views_) tensors.push_back(part.view);
    path_ = checkpoint::WriteCheckpoint(folder_, meta_, tensors);
    return;
  }
  try {
    written_ = ToJson(checkpoint::WritePart(part_folder_, group_->rank(), group_->size(), views_));
  } catch (const Error& error) {
    written_ = {{"error", error.what()}};
  }
}

std::vector<checkpoint::PartFile> Saving::GatherParts() {
  const std::vector<std::string> texts = group_->GatherTexts(written_.dump());
  std::vector<checkpoint::PartFile> parts;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    const nlohmann::json said = nlohmann::json::parse(texts[rank]);
    if (said.contains("error")) {
      if (group_->is_root()) checkpoint::AbandonParts(part_folder_);
      throw ResourceError(StrCat("rank ", rank, " cannot write its part of a checkpoint: ",
                                 said.at("error").get<std::string>(),
                                 ". The checkpoints before are untouched"));
    }
    parts.push_back(PartFromJson(said));
  }
  return parts;
}

std::string Saving::Finish() {
  if (group_ == nullptr) return path_;
  const std::vector<checkpoint::PartFile> parts = GatherParts();
  group_->OnRoot(
      [&] { path_ = checkpoint::FinishParts(folder_, part_folder_, meta_, views_, parts); });
  return group_->FromRoot(path_);
}

void LoadTrainState(const checkpoint::CheckpointReader& reader, TrainState* state) {
  const nlohmann::json& json = reader.meta().state;
  const std::string& path = reader.folder();
  model::CheckModel(reader, state->decoder.config());
  for (const OwnedTensor& tensor : Tensors(*state, /*owned=*/false)) {
    TERN_CHECK(tensor.value.is_contiguous() && tensor.value.scalar_type() == at::kFloat,
               tensor.name);
    ReadPart(reader, tensor);
  }
  state->sharding.ValuesLoaded();
  state->optimizer.set_num_updates(Field<int64_t>(json, "num_updates", path));
  state->scaler.Load(Field<nlohmann::json>(json, "scaler", path));
  state->faults.Load(Field<nlohmann::json>(json, "faults", path));
  using Norms = std::map<std::string, double>;
  state->balance.Load(json.contains(kBalance) ? Field<Norms>(json, kBalance, path) : Norms{});
  state->step = reader.meta().step;
  state->data_offset = Field<int64_t>(json, "data_offset", path);
  state->loss = Field<double>(json, "loss", path);
  state->evaluated_step = Field<int64_t>(json, "evaluated_step", path);
  state->validation_loss = Field<double>(json, "validation_loss", path);
}

}  // namespace tern::train
