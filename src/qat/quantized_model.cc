// See quantized_model.h.
#include "qat/quantized_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/checkpoint_io.h"
#include "nn/straight_through.h"
#include "qat/fake_quantize.h"
#include "quant/grid_scales.h"
#include "quant/hadamard.h"

namespace tern::qat {
namespace {

constexpr double kExponentialRate = 5, kSigmoidRate = 12;

std::string ScaleName(const std::string& parameter) { return "quantize." + parameter; }
std::string ZeroName(const std::string& parameter) { return "quantize_zero." + parameter; }

bool KeepsStart(const recipe::QuantizeRule& rule) {
  return rule.scales == recipe::ScaleSource::kStart;
}

// Of the scales that a rule keeps beside a matrix of this shape, learned or those of the start.
std::vector<int64_t> ScaleShape(const recipe::QuantizeRule& rule, at::IntArrayRef shape) {
  return {shape[0], rule.Group() > 0 ? shape[1] / rule.Group() : 1};
}

}  // namespace

double QuantizedShare(const recipe::QuantizeConfig& config, int64_t step) {
  if (step >= config.warmup_steps) return 1;
  const double t = static_cast<double>(step) / static_cast<double>(config.warmup_steps);
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-kSigmoidRate * (x - 0.5))); };
  switch (config.warmup) {
    case recipe::QuantizeWarmup::kLinear:
      return t;
    case recipe::QuantizeWarmup::kExponential:
      return (1 - std::exp(-kExponentialRate * t)) / (1 - std::exp(-kExponentialRate));
    case recipe::QuantizeWarmup::kSigmoid:
      return (sigmoid(t) - sigmoid(0)) / (sigmoid(1) - sigmoid(0));
  }
  __builtin_unreachable();
}

QuantizedModel::QuantizedModel(const recipe::TrainStage& stage, const ModelConfig& model,
                               uint64_t seed, const at::Device& device)
    : config_(stage.quantize),
      stage_id_(stage.id),
      seed_(seed),
      device_(device),
      steps_(stage.steps),
      rules_(MatchRules(stage.quantize, model, stage.id)),
      adapters_(stage.lora, model, stage.id, seed, device) {
  for (const ParameterSpec& spec : ParameterTable(model)) {
    const auto rule = rules_.find(spec.name);
    if (rule == rules_.end()) continue;
    const std::vector<int64_t> shape = ScaleShape(rule->second, spec.shape);
    if (LearnedOf(rule->second))
      AddParameter(ScaleName(spec.name), shape, stage.optimizer.scale_lr_factor);
    if (!KeepsStart(rule->second)) continue;
    AddParameter(ScaleName(spec.name), shape, std::nullopt);
    if (!rule->second.symmetric) AddParameter(ZeroName(spec.name), shape, std::nullopt);
  }
}

void QuantizedModel::AddParameter(const std::string& name, std::vector<int64_t> shape,
                                  std::optional<double> lr_factor) {
  scale_index_[name] = scales_.size();
  const at::Tensor value = at::zeros(shape, at::TensorOptions(at::kFloat).device(device_));
  value.set_requires_grad(lr_factor.has_value());
  scales_.push_back({{name, std::move(shape), ParameterRole::kNorm}, value, lr_factor.value_or(0)});
}

const at::Tensor& QuantizedModel::Extra(const std::string& name) const {
  static const at::Tensor kNone;
  const auto found = scale_index_.find(name);
  return found == scale_index_.end() ? kNone : scales_[found->second].value;
}

RuleScales QuantizedModel::ScalesOf(const std::string& parameter) const {
  RuleScales scales;
  const at::Tensor& scale = Extra(ScaleName(parameter));
  if (KeepsStart(rules_.at(parameter))) {
    scales.start = {scale, Extra(ZeroName(parameter)), 1};
  } else {
    scales.scale_NG = scale;
  }
  return scales;
}

void QuantizedModel::Start(const model::Decoder& decoder) const {
  const at::NoGradGuard no_grad;
  for (const auto& [name, rule] : rules_) {
    if (rule.hadamard) decoder.Get(name).copy_(quant::Hadamard(decoder.Get(name)));
    const at::Tensor scale = Extra(ScaleName(name));
    if (const auto learned = LearnedOf(rule))
      scale.copy_(InitialScale(*learned, adapters_.Merged(name, decoder.Get(name)), scale.size(1)));
    if (!KeepsStart(rule)) continue;
    const auto found = quant::ScalesOnGrid(decoder.Get(name).detach().cpu(), *FormatOf(rule));
    if (!found) {
      throw RecipeError(StrCat(stage_id_, ".quantize.rules.", rule.name,
                               ".scales: found start, and ", name, " of model.from holds no ",
                               FormatOf(rule)->Describe(),
                               "; want the folder that tern quantize made so, or scales: weights"));
    }
    scale.copy_(found->scale_RC);
    if (found->zero_RC.defined()) at::Tensor(Extra(ZeroName(name))).copy_(found->zero_RC);
  }
}

recipe::QuantizeRule QuantizedModel::RuleAt(const recipe::QuantizeRule& rule, int64_t step) const {
  if (rule.weights == recipe::WeightQuantizer::kNone) return rule;
  const std::vector<std::string>& ladder = config_.progressive;
  const double until = config_.progressive_until * static_cast<double>(steps_);
  if (ladder.empty() || static_cast<double>(step) >= until) return rule;
  const auto rung =
      static_cast<size_t>(static_cast<double>(step) / until * static_cast<double>(ladder.size()));
  recipe::QuantizeRule now = rule;
  now.weights = QuantizerFromName(ladder[std::min(rung, ladder.size() - 1)]);
  return now;
}

std::vector<model::Parameter> QuantizedModel::parameters() const {
  std::vector<model::Parameter> all = scales_;
  for (model::Parameter& adapter : adapters_.parameters()) all.push_back(std::move(adapter));
  return all;
}

std::vector<std::string> QuantizedModel::Names() const {
  std::vector<std::string> names = adapters_.names();
  for (const auto& [name, rule] : rules_) {
    if (rule.weights == recipe::WeightQuantizer::kNone) continue;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

SharedRanges QuantizedModel::RangesAt(const model::Decoder& decoder, int64_t step) const {
  const at::NoGradGuard no_grad;
  SharedRanges ranges;
  for (const auto& [name, stored] : rules_) {
    if (HasTensorScale(RuleAt(stored, step)))
      ranges.Add(name, adapters_.Merged(name, decoder.Get(name)));
  }
  return ranges;
}

at::Tensor QuantizedModel::Effective(const std::string& name, const at::Tensor& latent_NK,
                                     const SharedRanges& ranges, int64_t step, double share,
                                     bool trains) const {
  const at::Tensor merged_NK = adapters_.Merged(name, latent_NK);
  const auto rule = rules_.find(name);
  if (rule == rules_.end()) return merged_NK;
  const quant::Noise noise{RandomStream(seed_, StrCat("rounding/", stage_id_, "/", name)),
                           static_cast<uint64_t>(step) * static_cast<uint64_t>(merged_NK.numel())};
  RuleScales scales = ScalesOf(name);
  scales.amax = ranges.Of(name);
  const at::Tensor quantized_NK =
      FakeQuantize(RuleAt(rule->second, step), merged_NK, scales, trains ? &noise : nullptr);
  return share < 1 ? merged_NK * (1 - share) + quantized_NK * share : quantized_NK;
}

model::Decoder QuantizedModel::Begin(const model::Decoder& decoder, int64_t step) {
  const at::AutoGradMode record(true);
  const double share = QuantizedShare(config_, step);
  std::map<std::string, at::Tensor> values;
  graph_.clear();
  leaves_.clear();
  const SharedRanges ranges = RangesAt(decoder, step);
  for (const std::string& name : Names()) {
    graph_.push_back(Effective(name, decoder.Get(name), ranges, step, share, true));
    // Beside adapters, other layers are frozen.
    leaves_.push_back(graph_.back().detach().set_requires_grad(graph_.back().requires_grad()));
    values[name] = leaves_.back();
  }
  return decoder.With(values).WithInputs(InputsOf(rules_));
}

void QuantizedModel::End() {
  std::vector<at::Tensor> outputs, gradients;
  for (size_t i = 0; i < leaves_.size(); ++i) {
    if (!leaves_[i].grad().defined()) continue;
    outputs.push_back(graph_[i]);
    gradients.push_back(leaves_[i].grad());
  }
  if (!outputs.empty()) torch::autograd::backward(outputs, gradients);
  graph_.clear();
  leaves_.clear();
}

model::Decoder QuantizedModel::Shipped(const model::Decoder& decoder) const {
  const at::NoGradGuard no_grad;
  const SharedRanges ranges = RangesAt(decoder, steps_);
  std::map<std::string, at::Tensor> values;
  for (const std::string& name : Names()) {
    values[name] =
        Effective(name, decoder.Get(name), ranges, steps_, 1, false).detach().contiguous();
  }
  return decoder.With(values).WithInputs(InputsOf(rules_));
}

nlohmann::json QuantizedModel::ToJson() const {
  nlohmann::json rules = nlohmann::json::object();
  for (const auto& [name, rule] : rules_) {
    rules[name] = {
        {"weights", NameOf(rule.weights)}, {"group", rule.Group()}, {"symmetric", rule.symmetric}};
    if (rule.inputs != recipe::InputQuantizer::kNone) rules[name]["inputs"] = NameOf(rule.inputs);
    if (rule.hadamard) rules[name]["hadamard"] = true;
    if (KeepsStart(rule)) rules[name]["scales"] = "start";
  }
  return {{"rules", rules}, {"lora", adapters_.ToJson()}};
}

namespace {

nlohmann::json StoredState(const checkpoint::CheckpointReader& reader, const char* key) {
  const nlohmann::json& state = reader.meta().state;
  if (!state.contains(kQuantizeState)) return nlohmann::json::object();
  const nlohmann::json& stored = state.at(kQuantizeState);
  return stored.is_object() ? stored.value(key, nlohmann::json::object())
                            : nlohmann::json::object();
}

// The adapter's part: latents as they would be without one.
model::Decoder Merge(const checkpoint::CheckpointReader& reader, const model::Decoder& decoder) {
  const Adapters adapters(StoredState(reader, "lora"), reader, decoder);
  std::map<std::string, at::Tensor> values;
  for (const std::string& name : adapters.names())
    values[name] = adapters.Merged(name, decoder.Get(name)).detach().contiguous();
  return decoder.With(values);
}

}  // namespace

namespace {

LayerRules StoredRules(const checkpoint::CheckpointReader& reader) {
  LayerRules rules;
  const nlohmann::json all = StoredState(reader, "rules");
  for (const auto& [name, stored] : all.items()) {
    recipe::QuantizeRule& rule = rules[name];
    try {
      rule.weights = QuantizerFromName(stored.at("weights").get<std::string>());
      rule.group = stored.at("group").get<int64_t>();
      rule.symmetric = stored.at("symmetric").get<bool>();
      rule.inputs = InputQuantizerFromName(stored.value("inputs", std::string("none")));
      rule.hadamard = stored.value("hadamard", false);
      if (stored.contains("scales")) rule.scales = recipe::ScaleSource::kStart;
    } catch (const nlohmann::json::exception& error) {
      throw FormatError(StrCat(reader.folder(), ": state.quantize.", name, ": ", error.what()));
    }
  }
  return rules;
}

// A matrix that a rule of the checkpoint quantizes.
struct RuledMatrix {
  recipe::QuantizeRule rule;
  at::Tensor latent_NK;
  RuleScales scales;
};

// `merged`: as trained, rotated matrices included.
std::map<std::string, RuledMatrix> RuledMatrices(const checkpoint::CheckpointReader& reader,
                                                 const model::Decoder& merged) {
  std::map<std::string, RuledMatrix> matrices;
  SharedRanges ranges;
  for (const auto& [name, rule] : StoredRules(reader)) {
    RuledMatrix& matrix = matrices[name];
    matrix.rule = rule;
    matrix.latent_NK = merged.Get(name).detach();
    if (HasTensorScale(rule)) ranges.Add(name, matrix.latent_NK);
    const auto read = [&](const std::string& extra) {
      const at::Tensor value = at::empty(ScaleShape(rule, matrix.latent_NK.sizes()), at::kFloat);
      model::ReadInto(reader, StrCat(kExtraGroup, extra), value);
      return value;
    };
    if (LearnedOf(rule)) matrix.scales.scale_NG = read(ScaleName(name));
    if (!KeepsStart(rule)) continue;
    matrix.scales.start = {read(ScaleName(name)),
                           rule.symmetric ? at::Tensor() : read(ZeroName(name)), 1};
  }
  for (auto& [name, matrix] : matrices) matrix.scales.amax = ranges.Of(name);
  return matrices;
}

}  // namespace

model::Decoder LoadLatents(const checkpoint::CheckpointReader& reader) {
  const at::NoGradGuard no_grad;
  const model::Decoder merged = Merge(reader, model::LoadDecoder(reader));
  std::map<std::string, at::Tensor> values;
  for (const auto& [name, rule] : StoredRules(reader)) {
    if (rule.hadamard) values[name] = quant::Hadamard(merged.Get(name).detach());
  }
  return merged.With(values);
}

model::Decoder LoadShipped(const checkpoint::CheckpointReader& reader) {
  const at::NoGradGuard no_grad;
  const model::Decoder merged = Merge(reader, model::LoadDecoder(reader));
  std::map<std::string, at::Tensor> values;
  for (const auto& [name, matrix] : RuledMatrices(reader, merged))
    values[name] = FakeQuantize(matrix.rule, matrix.latent_NK, matrix.scales).detach();
  return merged.With(values).WithInputs(InputsOf(StoredRules(reader)));
}

std::map<std::string, quant::QuantizedWeight> LoadCodes(
    const checkpoint::CheckpointReader& reader) {
  const at::NoGradGuard no_grad;
  const model::Decoder merged = Merge(reader, model::LoadDecoder(reader));
  std::map<std::string, quant::QuantizedWeight> codes;
  for (const auto& [name, matrix] : RuledMatrices(reader, merged)) {
    if (!FormatOf(matrix.rule)) {
      throw RecipeError(StrCat(name, " was trained with ", Describe(matrix.rule),
                               ", whose levels no packed format has; want hf/f32 or gguf/f32"));
    }
    codes.emplace(name, Encode(matrix.rule, matrix.latent_NK, matrix.scales));
  }
  return codes;
}

}  // namespace tern::qat
