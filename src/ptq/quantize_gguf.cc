// See quantize_gguf.h.
#include "ptq/quantize_gguf.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <numeric>
#include <tuple>
#include <utility>

#include "arch/gguf_names.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/stop_signal.h"
#include "base/trim_heap.h"
#include "formats/gguf.h"
#include "ptq/calibration.h"
#include "ptq/check.h"
#include "ptq/check_options.h"
#include "ptq/float_model.h"
#include "ptq/gguf_mix.h"
#include "ptq/gguf_tokenizer_keys.h"
#include "ptq/importance.h"
#include "ptq/ledger.h"
#include "transfer/gguf_export.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using formats::GgmlType;

constexpr int64_t kRowGrain = 4;

// Sums of (x - y)^2 and of x^2 in double; of eight lanes, so that additions do not wait for each
// other.
std::pair<double, double> LostAndPower(const float* x, const float* y, int64_t count) {
  constexpr int64_t kLanes = 8;
  double lost[kLanes] = {}, power[kLanes] = {};
  const auto add = [&](int64_t i, int64_t lane) {
    const double difference = double{x[i]} - double{y[i]};
    lost[lane] += difference * difference;
    power[lane] += double{x[i]} * double{x[i]};
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  for (; i < count; ++i) add(i, 0);
  return {std::accumulate(lost, lost + kLanes, 0.0), std::accumulate(power, power + kLanes, 0.0)};
}

// The rows of one tensor, encoded all at once when the writer asks for the first, and dropped with
// the last.
class EncodedTensor {
 public:
  EncodedTensor(FloatModel* model, const ParameterSpec& spec, const GgufTypeChoice& choice,
                bool permuted, const std::vector<float>* importance, QuantizeReport* report,
                std::vector<nlohmann::json>* ledger)
      : model_(model),
        spec_(spec),
        choice_(choice),
        permuted_(permuted),
        importance_(importance),
        report_(report),
        ledger_(ledger) {}

  void Row(int64_t row, uint8_t* out) {
    if (row == 0) Encode();
    const auto size = static_cast<size_t>(RowBytes());
    std::memcpy(out, bytes_.data() + static_cast<size_t>(row) * size, size);
    if (row == rows() - 1) bytes_ = {};
  }

 private:
  int64_t rows() const { return spec_.shape.size() == 2 ? spec_.shape[0] : 1; }
  int64_t k() const { return spec_.shape.back(); }
  int64_t RowBytes() const { return formats::RowBytes(choice_.type, k()); }

  void Encode() {
    ThrowIfStopped("the file was written, of which nothing is kept");
    const at::Tensor value = model_->Read(spec_).contiguous();
    const float* x = value.const_data_ptr<float>();
    bytes_.resize(static_cast<size_t>(rows() * RowBytes()));
    std::vector<double> lost(static_cast<size_t>(rows())), power(lost.size());
    const int64_t head_dim = model_->config().HeadDim();
    at::parallel_for(0, rows(), kRowGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> back(static_cast<size_t>(k()));
      for (int64_t row = begin; row < end; ++row) {
        const float* from = x + row * k();
        uint8_t* to = bytes_.data() + (permuted_ ? PermutedRow(row, head_dim) : row) * RowBytes();
        formats::EncodeRow(choice_.type, from, k(), to,
                           importance_ != nullptr ? importance_->data() : nullptr);
        formats::DecodeRow(choice_.type, to, k(), back.data());
        const auto at = static_cast<size_t>(row);
        std::tie(lost[at], power[at]) = LostAndPower(from, back.data(), k());
      }
    });
    if (spec_.shape.size() == 2) Note(lost, power);
  }

  void Note(const std::vector<double>& lost, const std::vector<double>& power) {
    double all_lost = 0, all_power = 0;
    for (size_t row = 0; row < lost.size(); ++row) {
      all_lost += lost[row];
      all_power += power[row];
    }
    const double error = all_power > 0 ? all_lost / all_power : 0.0;
    ledger_->push_back({{"tensor", spec_.name},
                        {"method", importance_ != nullptr ? "imatrix" : "rtn"},
                        {"format", formats::InfoOf(choice_.type).name},
                        {"error_of", "weights"},
                        {"error", error},
                        {"fallback", choice_.fallback.empty() ? nlohmann::json()
                                                              : nlohmann::json(choice_.fallback)},
                        {"bytes_sha256", Sha256Hex({reinterpret_cast<const char*>(bytes_.data()),
                                                    bytes_.size()})}});
    if (spec_.role != ParameterRole::kLinear) return;
    ++report_->matrices;
    report_->weights += spec_.Count();
    report_->fallbacks += choice_.fallback.empty() ? 0 : 1;
    report_->error += error;
    report_->bits_per_weight += 8.0 * static_cast<double>(bytes_.size());
  }

  FloatModel* model_;
  ParameterSpec spec_;
  GgufTypeChoice choice_;
  bool permuted_;
  const std::vector<float>* importance_;  // Null: none
  QuantizeReport* report_;
  std::vector<nlohmann::json>* ledger_;
  std::vector<uint8_t> bytes_;
};

// A file with all keys and no tensors of the model yet.
formats::GgufWriter StartFile(const FloatModel& model, uint32_t file_type) {
  const ModelConfig& config = model.config();
  const ArchChoice arch = ChooseGgufArch(config);
  if (arch.name == ArchName::kNone) throw InputError(arch.reason);
  formats::GgufWriter writer(GgufArchName(arch.name));
  transfer::AddGgufModelKeys(config, fs::path(model.path()).stem().string(), file_type, &writer);
  AddTokenizerKeys(model, &writer);
  transfer::AddGgufRopeFactors(config, &writer);
  return writer;
}

// Bytes of the file beside its matrices. The length of its head depends on keys and names alone, so
// a file with the same head and one number a matrix tells.
int64_t OtherBytes(const FloatModel& model, const std::string& path) {
  formats::GgufWriter writer = StartFile(model, 0);
  int64_t matrices_bytes = 0;
  for (const ParameterSpec& spec : ParameterTable(model.config())) {
    const bool matrix = spec.shape.size() == 2;
    const std::vector<int64_t> shape = matrix ? std::vector<int64_t>{1, 1} : spec.shape;
    writer.AddTensor(GgufName(spec.name), GgmlType::kF32, shape,
                     [k = shape.back()](int64_t, uint8_t* out) {
                       std::memset(out, 0, static_cast<size_t>(k) * sizeof(float));
                     });
    if (matrix) matrices_bytes += GgufTensorBytes(GgmlType::kF32, shape);
  }
  writer.Write(path);
  const auto size_bytes = static_cast<int64_t>(fs::file_size(path));
  fs::remove(path);
  return size_bytes - matrices_bytes;
}

using TypeOf = std::function<GgufTypeChoice(const ParameterSpec&)>;  // Of a matrix

void Write(FloatModel* model, uint32_t file_type, const TypeOf& type_of,
           const Importance& importance, const std::string& path, QuantizeReport* report,
           std::vector<nlohmann::json>* ledger) {
  formats::GgufWriter writer = StartFile(*model, file_type);
  const ArchName arch = ChooseGgufArch(model->config()).name;
  for (const ParameterSpec& spec : ParameterTable(model->config())) {
    const GgufTypeChoice choice =
        spec.shape.size() == 2 ? type_of(spec) : GgufTypeChoice{GgmlType::kF32, ""};
    const auto weights = importance.find(spec.name);
    const auto tensor = std::make_shared<EncodedTensor>(
        model, spec, choice, IsPermuted(arch, spec.name),
        weights != importance.end() ? &weights->second : nullptr, report, ledger);
    writer.AddTensor(GgufName(spec.name), choice.type, spec.shape,
                     [tensor](int64_t row, uint8_t* out) { tensor->Row(row, out); });
  }
  writer.Write(path);
  model->CheckAllUsed();
}

// The bytes of every tensor are those that were encoded.
void CheckBytes(const std::string& path, const std::vector<nlohmann::json>& ledger) {
  const formats::GgufReader file(path);
  for (const nlohmann::json& line : ledger) {
    const formats::GgufTensor& tensor = file.Get(GgufName(line.at("tensor").get<std::string>()));
    const std::string found =
        Sha256Hex({reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()});
    if (found != line.at("bytes_sha256").get<std::string>())
      throw NumericError(StrCat(path, ": the blocks of ", tensor.name,
                                " are not those that were written; the file is damaged"));
    file.DropPages();
  }
}

FloatModel Opened(const QuantizeOptions& options) {
  FloatModel model(options.source, options.tokenizer, options.allow_requantize);
  CheckOptions(options, model.config());
  if (options.rotate) model.Rotate();
  return model;
}

// The calibration is both the importance of the columns and, its last window, what the result is
// compared on.
struct Inputs {
  std::optional<Calibration> calibration;
  Importance importance;
  MemoryPlan memory;
  ActivationRoom room;
};

// `work`: a folder for activations.
Inputs ReadInputs(const QuantizeOptions& options, FloatModel* opened, const std::string& work) {
  FloatModel& model = *opened;
  Inputs inputs;
  const ModelConfig& config = model.config();
  const int64_t sequence = std::min(options.sequence, config.context_length);
  inputs.calibration = CalibrationOf(options, model);
  const Calibration* const calibration = inputs.calibration ? &*inputs.calibration : nullptr;
  inputs.memory = PlanMemoryOf(options, opened, calibration);
  if (inputs.memory.activations_on_disk) inputs.room = ActivationRoom(work);
  if (!options.imatrix.empty() && fs::exists(options.imatrix)) {
    inputs.importance = ReadImportance(options.imatrix, config);
  } else if (inputs.calibration && options.method != "rtn") {
    FloatModel pass = Opened(options);
    inputs.importance = CollectImportance(&pass, inputs.calibration->tokens_BT, inputs.room);
    if (!options.imatrix.empty()) {
      WriteImportance(options.imatrix, inputs.importance, inputs.calibration->tokens_BT.numel(),
                      sequence, inputs.calibration->name);
      inputs.importance = ReadImportance(options.imatrix, config);  // With the file's rounding
    }
  }
  TERN_CHECK_INPUT(options.imatrix.empty() || !inputs.importance.empty(), options.imatrix,
                   " does not exist; it is made with --calibration (and not --method rtn)");
  return inputs;
}

// The folder in which a file is made, of one process at a time. What a killed one has left there is
// removed, and all of it at the end: a file is made in one go.
class WorkPlace {
 public:
  explicit WorkPlace(std::string path) : path_(std::move(path)) {
    TERN_CHECK_INPUT(!fs::exists(path_ + "/job.json"), path_,
                     " holds the layers of an unfinished folder; run its command again, give "
                     "another name, or remove it");
    MakeFolders(path_);
    lock_.emplace(path_ + "/lock");
    RemoveUnfinishedFiles(path_);
  }
  ~WorkPlace() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  WorkPlace(const WorkPlace&) = delete;
  WorkPlace& operator=(const WorkPlace&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::optional<FileLock> lock_;
};

// Everything but the choice of types: write_to(model, inputs, path, report, ledger).
template <class WriteTo>
QuantizeReport QuantizeWith(const QuantizeOptions& options, const WriteTo& write_to) {
  const at::NoGradGuard no_grad;
  const WorkPlace work(options.output + ".partial");
  TERN_CHECK_INPUT(!fs::exists(options.output), options.output,
                   " exists; give another name, or remove it: it is not written over");
  FloatModel model = Opened(options);
  if (!options.companions.empty()) model.TakeCompanions(options.companions);
  const Inputs inputs = ReadInputs(options, &model, work.path());
  TrimHeap();
  const std::string beside = work.path() + "/result.gguf";
  QuantizeReport report;
  report.layers = model.config().num_layers;
  report.scheme = options.to;
  std::vector<nlohmann::json> ledger;
  write_to(&model, inputs, beside, &report, &ledger);
  if (options.rotate) {
    for (nlohmann::json& line : ledger) line["rotation"] = model.RotationText();
  }
  NoteMemory(inputs.memory, &report);
  model.Close();
  TrimHeap();
  CheckBytes(beside, ledger);
  if (inputs.calibration) {
    SetDivergence(
        CompareWithSource(options.source, beside, inputs.calibration->held_out, options.threads),
        options.max_kl, &report);
  }
  report.size_bytes = static_cast<int64_t>(fs::file_size(beside));
  const std::string ledger_beside = work.path() + "/ledger.jsonl";
  WriteLedger(beside, ledger, ledger_beside);
  fs::rename(ledger_beside, LedgerPath(options.output));
  fs::rename(beside, options.output);
  const std::string parent = fs::path(options.output).parent_path().string();
  SyncPath(parent.empty() ? "." : parent);
  report.error /= static_cast<double>(report.matrices);
  report.error_rtn = report.error;
  report.bits_per_weight /= static_cast<double>(report.weights);
  return report;
}

// `beside`: a file for a moment.
GgufPlan Plan(const QuantizeOptions& options, const SizeTarget* target, FloatModel* model,
              const Inputs& inputs, const std::string& beside) {
  FloatModel pass = Opened(options);
  const Sensitivity sensitivity = MeasureSensitivity(&pass, inputs.calibration->tokens_BT);
  return PlanGguf(model, target, OtherBytes(*model, beside), options.types, sensitivity,
                  inputs.importance);
}

}  // namespace

QuantizeReport QuantizeGguf(const QuantizeOptions& options) {
  const GgufMix mix = *GgufMixByName(options.to);
  return QuantizeWith(options, [&](FloatModel* model, const Inputs& inputs, const std::string& path,
                                   QuantizeReport* report, std::vector<nlohmann::json>* ledger) {
    const TypeOf type_of = [&](const ParameterSpec& spec) {
      return ChooseGgufType(mix, spec, model->config(), {options.pure, !inputs.importance.empty()});
    };
    Write(model, mix.file_type, type_of, inputs.importance, path, report, ledger);
  });
}

QuantizeReport QuantizeGgufToSize(const QuantizeOptions& options, GgufPlan* plan) {
  const std::optional<SizeTarget> target = TargetOf(options);
  TERN_CHECK(target.has_value(), "no size is asked for");
  return QuantizeWith(options, [&](FloatModel* model, const Inputs& inputs, const std::string& path,
                                   QuantizeReport* report, std::vector<nlohmann::json>* ledger) {
    *plan = Plan(options, &*target, model, inputs, path);
    report->scheme = "mixed types";
    const TypeOf type_of = [&](const ParameterSpec& spec) {
      return GgufTypeChoice{plan->types.at(spec.name), ""};
    };
    Write(model, plan->file_type, type_of, inputs.importance, path, report, ledger);
    const auto size_bytes = static_cast<int64_t>(fs::file_size(path));
    TERN_CHECK(size_bytes == plan->chosen.size_bytes, path, " has ", size_bytes, " bytes, not ",
               plan->chosen.size_bytes);
  });
}

SizePlan GgufFront(const QuantizeOptions& options) {
  const at::NoGradGuard no_grad;
  const WorkPlace work(options.output + ".partial");
  FloatModel model = Opened(options);
  const Inputs inputs = ReadInputs(options, &model, work.path());
  return SizePlanOf(Plan(options, nullptr, &model, inputs, work.path() + "/head.gguf"));
}

}  // namespace tern::ptq
