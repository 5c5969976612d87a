// See quantize_model.h.
#include "ptq/quantize_model.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/stop_signal.h"
#include "base/trim_heap.h"
#include "formats/safetensors.h"
#include "ptq/calibration.h"
#include "ptq/check.h"
#include "ptq/check_options.h"
#include "ptq/float_model.h"
#include "ptq/folder_budget.h"
#include "ptq/gguf_mix.h"
#include "ptq/ledger.h"
#include "ptq/method.h"
#include "ptq/quantize_gguf.h"
#include "ptq/quantize_layer.h"
#include "ptq/work_folder.h"
#include "transfer/hf_export.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;

// Which files a source has, and of when: work on one of another content does not go on. Hashing
// them would cost as much as reading the model once more.
nlohmann::json FilesOf(const std::string& source) {
  std::vector<fs::path> files = {source};
  if (fs::is_directory(source)) {
    const fs::recursive_directory_iterator all(source);
    files.assign(fs::begin(all), fs::end(all));
    std::sort(files.begin(), files.end());
  }
  nlohmann::json list = nlohmann::json::array();
  for (const fs::path& file : files) {
    if (fs::is_regular_file(file)) {
      list.push_back({file.filename().string(), fs::file_size(file),
                      fs::last_write_time(file).time_since_epoch().count()});
    }
  }
  return list;
}

Scheme FirstScheme(const QuantizeOptions& options, const ModelConfig& config) {
  if (TargetOf(options)) return FolderCandidates(options.types, options.group, config).front();
  return SchemeByName(options.to, options.group, config, options.container);
}

std::string Prefix(int64_t layer) { return StrCat("model.layers.", layer, "."); }

class Job {
 public:
  explicit Job(QuantizeOptions options)
      : options_(std::move(options)),
        model_(options_.source, options_.tokenizer, options_.allow_requantize),
        scheme_(FirstScheme(options_, model_.config())) {
    CheckOptions(options_, model_.config());
    options_.method = MethodOf(options_);
    if (MethodTrains(options_.method) && options_.layer_steps == 0)
      options_.layer_steps = recipe::kLayerSteps;
    if (options_.rotate) model_.Rotate();
    if (!options_.companions.empty()) model_.TakeCompanions(options_.companions);
    options_.sequence = std::min(options_.sequence, model_.config().context_length);
    calibration_ = CalibrationOf(options_, model_);
    memory_ = PlanMemoryOf(options_, &model_, calibration_ ? &*calibration_ : nullptr);
  }

  QuantizeReport Run() {
    const at::NoGradGuard no_grad;
    WorkFolder work(options_.output, JobJson(), options_.discard_other_work);
    ChooseSchemes(work);
    RunLayers(&work);
    const std::string folder = work.path() + "/result";
    fs::remove_all(folder);
    MakeFolders(folder);
    WriteFolder(work, folder);
    QuantizeReport report = Summary(work.Ledger());
    report.size_bytes = formats::SafetensorsReader(folder).size_bytes();
    TERN_CHECK(!plan_ || report.size_bytes == plan_->chosen.size_bytes, folder, " has ",
               report.size_bytes, " bytes, not ", plan_->chosen.size_bytes);
    Check(folder, work.Ledger(), &report);
    work.Finish(folder);
    return report;
  }

 private:
  // Of a size: what each matrix gets, chosen once and kept with the work.
  void ChooseSchemes(const WorkFolder& work) {
    const std::optional<SizeTarget> target = TargetOf(options_);
    if (!target) return;
    const std::string file = work.PlanFile();
    if (!fs::exists(file))
      WritePlan(file, PlanFolder(options_, &*target, calibration_->tokens_BT, Room(work)).plan);
    plan_ = ReadPlan(file);
    const std::vector<Scheme> candidates =
        FolderCandidates(options_.types, options_.group, model_.config());
    for (const auto& [name, type] : plan_->types) {
      const auto scheme = std::find_if(candidates.begin(), candidates.end(),
                                       [&](const Scheme& of) { return of.name == type; });
      TERN_CHECK_FORMAT(scheme != candidates.end(), file, ": ", name, " is to be ", type);
      schemes_[name] = *scheme;
    }
  }

  // All that the bits of the result depend on.
  nlohmann::json JobJson() const {
    return {{"source", fs::absolute(options_.source).lexically_normal().string()},
            {"source_files", FilesOf(options_.source)},
            {"to", TargetOf(options_) ? options_.to_size + "mixed" : scheme_.name},
            {"to_bits", options_.to_bits},
            {"types", options_.types},
            {"format", scheme_.weights.Describe()},
            {"container", static_cast<int>(scheme_.container)},
            {"method", options_.method},
            {"min_max", options_.min_max},
            {"layer_steps", options_.layer_steps},
            {"batch", options_.batch},
            {"weight_lr", options_.block_ap.weight_lr},
            {"scale_lr", options_.block_ap.scale_lr},
            {"scale_steps", options_.scale_steps},
            {"rotation", model_.RotationText()},
            {"channel_scales", options_.channel_scales},
            {"damping", options_.gptq.damping},
            {"rounds", options_.gptq.rounds},
            {"activation_order", options_.gptq.activation_order},
            {"sequence", options_.sequence},
            {"calibration_sha256", calibration_ ? calibration_->sha256 : ""}};
  }

  ActivationRoom Room(const WorkFolder& work) const {
    return memory_.activations_on_disk ? ActivationRoom(work.path()) : ActivationRoom();
  }

  void RunLayers(WorkFolder* work) {
    const ActivationRoom room = Room(*work);
    LayerQuantizer quantizer(model_.config(), scheme_, options_, plan_ ? &schemes_ : nullptr, room);
    const int64_t layers = model_.config().num_layers;
    for (int64_t layer = 0; layer < work->layers_done(); ++layer)
      for (const ParameterSpec& spec : SpecsOf(layer)) model_.Skip(spec);
    at::Tensor x_BTD;
    if (calibration_ && work->layers_done() < layers)
      x_BTD = work->layers_done() > 0 ? work->Stream(room) : Embedded(room);
    for (int64_t layer = work->layers_done(); layer < layers; ++layer) {
      if (options_.progress) options_.progress(layer, layers);
      if (StopRequested()) {
        throw StoppedError(StrCat("stopped by ", SignalName(StopSignal()), " behind ", layer,
                                  " of ", layers, " layers, which are kept: run again to go on"));
      }
      BlockPass::Tensors tensors = ReadLayer(layer);
      LayerResult result = quantizer.Run(layer, &tensors, x_BTD);
      if (options_.rotate) {
        for (nlohmann::json& line : result.ledger) line["rotation"] = model_.RotationText();
      }
      work->SaveLayer(layer, result.tensors, result.ledger, x_BTD, room);
      model_.DropPages();
      TrimHeap();
    }
    if (options_.progress) options_.progress(layers, layers);
  }

  // What the first layer gets of the calibration.
  at::Tensor Embedded(const ActivationRoom& room) {
    const at::Tensor& tokens_BT = calibration_->tokens_BT;
    const at::Tensor x_BTD =
        room.New({tokens_BT.size(0), tokens_BT.size(1), model_.config().hidden_size});
    model_.Embed(tokens_BT, x_BTD, [&](at::Tensor x_TD) {
      x_TD.copy_(AsStored(x_TD, scheme_));
      room.Drop(x_TD);
    });
    return x_BTD;
  }

  std::vector<ParameterSpec> SpecsOf(int64_t layer) const {
    std::vector<ParameterSpec> specs = ParameterTable(model_.config());
    std::erase_if(specs, [prefix = Prefix(layer)](const ParameterSpec& spec) {
      return !spec.name.starts_with(prefix);
    });
    return specs;
  }

  BlockPass::Tensors ReadLayer(int64_t layer) {
    BlockPass::Tensors tensors;
    for (const ParameterSpec& spec : SpecsOf(layer))
      tensors[spec.name.substr(Prefix(layer).size())] = model_.Read(spec).contiguous();
    return tensors;
  }

  // All tensors lie mapped in files: of the layers, and those that are made here, one at a time.
  void WriteFolder(const WorkFolder& work, const std::string& folder) {
    formats::SafetensorsWriter writer;
    std::deque<formats::SafetensorsReader> readers;
    const auto add = [&](const std::string& file) {
      for (const auto& [name, tensor] : readers.emplace_back(file).tensors())
        writer.Add(name, tensor.dtype, tensor.shape, tensor.bytes.data(), /*mapped=*/true);
    };
    for (const ParameterSpec& spec : ParameterTable(model_.config())) {
      if (spec.name.starts_with("model.layers.")) continue;
      add(work.SaveTensor(PackParameter(&model_, spec, scheme_)));
      TrimHeap();
    }
    model_.CheckAllUsed();
    for (int64_t layer = 0; layer < model_.config().num_layers; ++layer)
      add(work.LayerFile(layer));
    writer.WriteFolder(folder);
    nlohmann::json config = transfer::HfConfigJson(model_.config(), scheme_.float_dtype());
    config["quantization_config"] = plan_ ? QuantizationConfig(schemes_, {"lm_head"})
                                          : QuantizationConfig(scheme_, {"lm_head"});
    if (scheme_.container == Container::kGptq || scheme_.container == Container::kGptqV2) {
      // Older loaders look for it here.
      WriteFileAtomically(folder + "/quantize_config.json",
                          config["quantization_config"].dump(2) + "\n");
    }
    transfer::WriteHfCompanions(
        std::move(config), model_.config().context_length,
        {model_.tokenizer() ? &*model_.tokenizer() : nullptr, model_.files()}, folder);
    WriteLedger(folder, work.Ledger(), LedgerPath(folder));
  }

  QuantizeReport Summary(const std::vector<nlohmann::json>& ledger) const {
    QuantizeReport report;
    report.layers = model_.config().num_layers;
    report.matrices = static_cast<int64_t>(ledger.size());
    report.calibration_tokens = calibration_ ? calibration_->tokens_BT.numel() : 0;
    report.scheme = plan_ ? "mixed types" : scheme_.weights.Describe();
    report.plan = plan_;
    NoteMemory(memory_, &report);
    for (const nlohmann::json& line : ledger) {
      report.fallbacks += line["fallback"].is_null() ? 0 : 1;
      report.error += line["error"].get<double>() / static_cast<double>(report.matrices);
      report.error_rtn += line["error_rtn"].get<double>() / static_cast<double>(report.matrices);
    }
    double bits = 0;
    for (const ParameterSpec& spec : ParameterTable(model_.config())) {
      if (spec.role != ParameterRole::kLinear) continue;
      report.weights += spec.Count();
      const Scheme& scheme = plan_ ? schemes_.at(spec.name) : scheme_;
      bits +=
          scheme.BitsPerWeight(spec.shape[0], spec.shape[1]) * static_cast<double>(spec.Count());
    }
    report.bits_per_weight = bits / static_cast<double>(report.weights);
    return report;
  }

  void Check(const std::string& folder, const std::vector<nlohmann::json>& ledger,
             QuantizeReport* report) {
    model_.Close();
    TrimHeap();
    CheckValues(folder, ledger);
    if (!calibration_) return;
    const Divergence found =
        CompareWithSource(options_.source, folder, calibration_->held_out, options_.threads);
    SetDivergence(found, options_.max_kl, report);
  }

  QuantizeOptions options_;
  FloatModel model_;
  Scheme scheme_;  // Of all matrices, unless there is a plan
  SchemeMap schemes_;
  std::optional<SizePlan> plan_;
  std::optional<Calibration> calibration_;
  MemoryPlan memory_;
};

}  // namespace

MemoryPlan PlanMemoryOf(const QuantizeOptions& options, FloatModel* model,
                        const Calibration* calibration) {
  MemoryFacts facts;
  facts.config = model->config();
  if (calibration != nullptr) {
    facts.sequences = calibration->tokens_BT.size(0);
    facts.sequence = calibration->tokens_BT.size(1);
  }
  facts.gguf = MakesGguf(options);
  facts.gptq = options.method == "gptq";
  facts.trains = TrainsLayers(options);
  facts.measures = TargetOf(options).has_value();
  facts.importance = calibration != nullptr && options.method != "rtn";
  facts.fp32_tables = model->DecodesTables();
  facts.checkpoint = model->IsCheckpoint();
  model->DropPages();
  TrimHeap();  // Of what was in memory on the way: the text of the calibration
  facts.base_bytes = ResidentBytes();
  const MemoryPlan plan = PlanMemory(facts, options.memory.empty() ? 0 : ParseSize(options.memory));
  return options.activations_on_disk ? PredictMemory(facts, true) : plan;
}

void NoteMemory(const MemoryPlan& plan, QuantizeReport* report) {
  report->predicted_memory_bytes = plan.Largest().bytes;
  report->activations_on_disk = plan.activations_on_disk;
}

void SetDivergence(const Divergence& found, double max_kl, QuantizeReport* report) {
  report->kl_tokens = found.tokens;
  report->mean_kl = found.mean_kl;
  report->top1_agreement = found.top1_agreement;
  if (max_kl > 0 && !(found.mean_kl <= max_kl)) {
    throw NumericError(StrCat("the mean KL to the source is ", found.mean_kl, " over ",
                              found.tokens, " held-out tokens, the limit ", max_kl));
  }
}

nlohmann::json ReportJson(const QuantizeReport& r) {
  nlohmann::json json = {{"layers", r.layers},
                         {"matrices", r.matrices},
                         {"weights", r.weights},
                         {"scheme", r.scheme},
                         {"bits_per_weight", r.bits_per_weight},
                         {"size_bytes", r.size_bytes},
                         {"calibration_tokens", r.calibration_tokens},
                         {"error", r.error},
                         {"error_rtn", r.error_rtn},
                         {"fallbacks", r.fallbacks},
                         {"kl_tokens", r.kl_tokens},
                         {"mean_kl", r.mean_kl},
                         {"top1_agreement", r.top1_agreement},
                         {"predicted_memory_bytes", r.predicted_memory_bytes},
                         {"activations_on_disk", r.activations_on_disk}};
  if (r.plan) json["plan"] = PlanJson(*r.plan);
  return json;
}

QuantizeReport QuantizeModel(const QuantizeOptions& options) {
  const std::optional<SizeTarget> target = TargetOf(options);
  if (target && MakesGguf(options)) {
    GgufPlan plan;
    QuantizeReport report = QuantizeGgufToSize(options, &plan);
    report.plan = SizePlanOf(plan);
    return report;
  }
  return MakesGguf(options) ? QuantizeGguf(options) : Job(options).Run();
}

bool MakesGguf(const QuantizeOptions& options) {
  if (!TargetOf(options)) return GgufMixByName(options.to).has_value();
  return options.container.empty() && options.output.ends_with(".gguf");
}

SizePlan MeasureFront(const QuantizeOptions& options) {
  QuantizeOptions any = options;
  if (!TargetOf(any)) any.to_bits = kAnyBits;
  return MakesGguf(any) ? GgufFront(any) : FolderFront(any);
}

}  // namespace tern::ptq
