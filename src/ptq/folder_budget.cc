// See folder_budget.h.
#include "ptq/folder_budget.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <numeric>
#include <sstream>

#include "base/error.h"
#include "base/stop_signal.h"
#include "formats/safetensors.h"
#include "ptq/bit_budget.h"
#include "ptq/block_pass.h"
#include "ptq/calibration.h"
#include "ptq/check_options.h"
#include "ptq/packed_tensors.h"
#include "ptq/quantize_layer.h"

namespace tern::ptq {
namespace {

constexpr const char* kDefaultTypes = "w2,w3,int4,w8";

// A tensor of the folder without its bytes.
struct Stored {
  std::string name, dtype;
  std::vector<int64_t> shape;
  int64_t size_bytes = 0;
};

std::vector<Stored> WithoutBytes(const std::vector<NamedTensor>& tensors) {
  std::vector<Stored> out;
  for (const NamedTensor& tensor : tensors)
    out.push_back(
        {tensor.name, tensor.dtype, tensor.shape, static_cast<int64_t>(tensor.bytes.size())});
  return out;
}

// The matrices of one step of one layer, which get one scheme.
struct Fused {
  int64_t layer = 0;
  std::vector<std::string> names;
  std::vector<BitOption> costs;              // Of each candidate
  std::vector<std::vector<Stored>> tensors;  // Of each candidate
};

at::Tensor AsTensor(const std::vector<float>& values) {
  return at::from_blob(const_cast<float*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kFloat);
}

// 1/2 sum_n s_n sum_k i_k e_nk^2 / sum_k i_k, with i the importance of the columns.
double PredictedKl(const at::Tensor& error_NK, const std::vector<double>& sensitivity,
                   const std::vector<float>& importance) {
  const double all = std::accumulate(importance.begin(), importance.end(), 0.0);
  if (!(all > 0)) return 0;
  const at::Tensor lost_N = error_NK.square().matmul(AsTensor(importance)).to(at::kDouble);
  const double* lost = lost_N.const_data_ptr<double>();
  double sum = 0;
  for (size_t n = 0; n < sensitivity.size(); ++n) sum += lost[n] * sensitivity[n];
  return 0.5 * sum / all;
}

class FolderPlanner {
 public:
  FolderPlanner(FloatModel* model, const std::vector<Scheme>& candidates,
                const quant::RangeSearch& range, const Sensitivity& sensitivity,
                const Importance& importance)
      : config_(model->config()), candidates_(candidates) {
    std::map<std::string, ParameterSpec> specs;
    for (const ParameterSpec& spec : ParameterTable(config_)) {
      specs[spec.name] = spec;
      if (spec.role == ParameterRole::kLinear) {
        weights_ += spec.Count();
      } else {
        floats_.push_back({spec.name, "BF16", spec.shape, 2 * spec.Count()});
      }
    }
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      ThrowIfStopped("types were chosen, of which nothing is kept");
      for (const Step step : kSteps) {
        Fused& fused = fused_.emplace_back();
        fused.layer = layer;
        fused.costs.resize(candidates.size());
        fused.tensors.resize(candidates.size());
        for (const std::string& within : MatricesOf(step)) {
          const std::string name = StrCat("model.layers.", layer, ".", within);
          fused.names.push_back(name);
          AddMatrix(model->Read(specs.at(name)).contiguous(), name, range, sensitivity.at(name),
                    importance.at(name), &fused);
        }
      }
    }
  }

  FolderPlan Plan(const SizeTarget* target) const {
    std::vector<std::vector<BitOption>> costs;
    for (const Fused& fused : fused_) costs.push_back(fused.costs);
    const BitBudget budget(costs);
    const std::vector<BitOption>& front = budget.front();
    FolderPlan out;
    const int64_t least = SizeOf(budget.Choice(0)), last = static_cast<int64_t>(front.size()) - 1,
                  most = SizeOf(budget.Choice(last));
    for (int64_t i = 0; i < kFrontPoints; ++i) {
      const int64_t place = Within(budget, least + (most - least) * i / (kFrontPoints - 1));
      const int64_t size = SizeOf(budget.Choice(place));
      if (out.plan.front.empty() || out.plan.front.back().size_bytes != size)
        out.plan.front.push_back({size, front[static_cast<size_t>(place)].loss});
    }
    out.plan.weights = weights_;
    if (target == nullptr) return out;
    const int64_t limit = target->Limit(weights_);
    if (limit < least) {
      throw InputError(StrCat("a folder of ", limit, " bytes: the smallest has ", least, " bytes, ",
                              8.0 * static_cast<double>(least) / static_cast<double>(weights_),
                              " bits a weight"));
    }
    Choose(budget, Within(budget, limit), &out);
    return out;
  }

 private:
  void AddMatrix(const at::Tensor& w_NK, const std::string& name, const quant::RangeSearch& range,
                 const std::vector<double>& sensitivity, const std::vector<float>& importance,
                 Fused* fused) const {
    for (size_t c = 0; c < candidates_.size(); ++c) {
      const quant::QuantizedWeight rounded = quant::Quantize(w_NK, candidates_[c].weights, range);
      for (Stored& tensor : WithoutBytes(PackLinear(name, rounded, candidates_[c]))) {
        fused->costs[c].bytes += tensor.size_bytes;
        fused->tensors[c].push_back(std::move(tensor));
      }
      fused->costs[c].loss +=
          PredictedKl(w_NK - quant::Dequantize(rounded), sensitivity, importance);
    }
  }

  // Of the folder's files of tensors, in the order in which they are written: what is not of a
  // layer, then layer by layer in the order of names.
  int64_t SizeOf(const std::vector<size_t>& choice) const {
    std::vector<std::vector<Stored>> layers(static_cast<size_t>(config_.num_layers));
    formats::SafetensorsWriter writer;
    for (const Stored& tensor : floats_) {
      if (!tensor.name.starts_with("model.layers.")) {
        writer.Add(tensor.name, tensor.dtype, tensor.shape, nullptr);
        continue;
      }
      const size_t number = std::string("model.layers.").size();
      layers[static_cast<size_t>(std::stoll(tensor.name.substr(number)))].push_back(tensor);
    }
    for (size_t f = 0; f < fused_.size(); ++f) {
      for (const Stored& tensor : fused_[f].tensors[choice[f]])
        layers[static_cast<size_t>(fused_[f].layer)].push_back(tensor);
    }
    for (std::vector<Stored>& layer : layers) {
      std::sort(layer.begin(), layer.end(),
                [](const Stored& a, const Stored& b) { return a.name < b.name; });
      for (const Stored& tensor : layer)
        writer.Add(tensor.name, tensor.dtype, tensor.shape, nullptr);
    }
    return writer.FolderBytes();
  }

  // The best place of the front whose folder has at most `limit` bytes, of which there is one.
  // Headers differ by a few hundred bytes between choices.
  int64_t Within(const BitBudget& budget, int64_t limit) const {
    const int64_t around = SizeOf(budget.Choice(0)) - budget.front().front().bytes;
    int64_t place = std::max<int64_t>(budget.Within(limit - around), 0);
    const auto last = static_cast<int64_t>(budget.front().size()) - 1;
    while (place < last && SizeOf(budget.Choice(place + 1)) <= limit) ++place;
    while (place > 0 && SizeOf(budget.Choice(place)) > limit) --place;
    return place;
  }

  void Choose(const BitBudget& budget, int64_t place, FolderPlan* out) const {
    const std::vector<size_t> choice = budget.Choice(place);
    out->plan.chosen = {SizeOf(choice), budget.front()[static_cast<size_t>(place)].loss};
    for (size_t f = 0; f < fused_.size(); ++f) {
      for (const std::string& name : fused_[f].names) {
        out->schemes[name] = candidates_[choice[f]];
        out->plan.types[name] = candidates_[choice[f]].name;
      }
    }
  }

  const ModelConfig config_;
  const std::vector<Scheme>& candidates_;
  std::vector<Stored> floats_;
  std::vector<Fused> fused_;
  int64_t weights_ = 0;
};

}  // namespace

std::vector<Scheme> FolderCandidates(const std::string& types, int64_t group,
                                     const ModelConfig& config) {
  std::vector<Scheme> out;
  std::istringstream names(types.empty() ? kDefaultTypes : types);
  for (std::string name; std::getline(names, name, ',');) {
    out.push_back(SchemeByName(name, group, config));
    if (out.back().quantizes_activations) {
      throw UsageError(StrCat("--types ", name, ": it quantizes activations, whose cost is not ",
                              "predicted; want types of weights alone, such as ", kDefaultTypes));
    }
  }
  return out;
}

FolderPlan PlanFolder(FloatModel* model, const SizeTarget* target,
                      const std::vector<Scheme>& candidates, const quant::RangeSearch& range,
                      const Sensitivity& sensitivity, const Importance& importance) {
  return FolderPlanner(model, candidates, range, sensitivity, importance).Plan(target);
}

FolderPlan PlanFolder(const QuantizeOptions& options, const SizeTarget* target,
                      const at::Tensor& tokens_BT, const ActivationRoom& room) {
  const at::NoGradGuard no_grad;
  const auto opened = [&] {
    FloatModel model(options.source, options.tokenizer, options.allow_requantize);
    if (options.rotate) model.Rotate();
    return model;
  };
  Importance importance;
  Sensitivity sensitivity;
  {  // One model in memory at a time
    FloatModel model = opened();
    importance = CollectImportance(&model, tokens_BT, room);
  }
  {
    FloatModel model = opened();
    sensitivity = MeasureSensitivity(&model, tokens_BT);
  }
  FloatModel model = opened();
  const std::vector<Scheme> candidates =
      FolderCandidates(options.types, options.group, model.config());
  return PlanFolder(&model, target, candidates, RangeOf(options), sensitivity, importance);
}

SizePlan FolderFront(const QuantizeOptions& options) {
  FloatModel model(options.source, options.tokenizer, options.allow_requantize);
  CheckOptions(options, model.config());
  const std::optional<Calibration> calibration = CalibrationOf(options, model);
  if (PlanMemoryOf(options, &model, &*calibration).activations_on_disk) {
    throw InputError(
        "--front has no work folder for activations; want a larger --memory, or fewer "
        "--calibration-tokens");
  }
  return PlanFolder(options, nullptr, calibration->tokens_BT).plan;
}

}  // namespace tern::ptq
