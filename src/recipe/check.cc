// See check.h.
#include "recipe/check.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "recipe/check_losses.h"
#include "recipe/check_parallel.h"
#include "recipe/check_ptq.h"
#include "recipe/check_quantize.h"
#include "recipe/schema.h"

namespace tern::recipe {
namespace {

class Checker {
 public:
  explicit Checker(const Recipe& recipe)
      : recipe_(recipe),
        shape_is_known_(recipe.start.from.empty() || !recipe.start.sha256.empty()) {}

  std::vector<std::string> Run() {
    if (shape_is_known_) ValidateModelConfig(recipe_.model);
    CheckData();
    std::set<std::string> ids;
    for (const Stage& stage : recipe_.stages) {
      if (!ids.insert(IdOf(stage)).second) {
        throw RecipeError(
            StrCat("stages: found a second stage with the id ", IdOf(stage), "; want another id"));
      }
      std::visit([&](const auto& s) { Check(s); }, stage);
      kinds_seen_.insert(KindOf(stage));
    }
    CheckExpectation();
    CheckParallel(recipe_, shape_is_known_);
    return warnings_;
  }

 private:
  void CheckData() {
    const DataConfig& data = recipe_.data;
    data.sources.empty() ? CheckFiles(data) : CheckSources(data);
    const std::string& name = recipe_.name;
    const bool plain = !name.empty() && name[0] != '.' &&
                       std::none_of(name.begin(), name.end(),
                                    [](unsigned char c) { return c < 0x20 || c == '/'; });
    if (!plain) {
      throw RecipeError(
          StrCat("name: found \"", name, "\"; want a folder name without / or a leading dot"));
    }
  }

  void CheckFetched(const char* key, const std::vector<std::string>& files) const {
    for (const std::string& file : files) {
      if (recipe_.data.fetch.empty() && file.find("{fetched}") != std::string::npos) {
        throw RecipeError(StrCat("data.fetch: found nothing, and ", key, " has \"", file,
                                 "\"; want the name of a script in scripts/fetch"));
      }
    }
  }

  void CheckFiles(const DataConfig& data) const {
    if (data.files.empty()) {
      throw RecipeError(
          "data.files: found nothing; want at least one text file, such as [my/*.txt]");
    }
    CheckFetched("data.files", data.files);
    CheckFetched("data.validation_files", data.validation_files);
  }

  void CheckSources(const DataConfig& data) const {
    if (!data.files.empty() || !data.validation_files.empty()) {
      throw RecipeError(StrCat("data.", data.files.empty() ? "validation_files" : "files",
                               ": found files beside data.sources; want one of the two (a source "
                               "of split: validation is held out)"));
    }
    const bool given = !recipe_.start.from.empty() || recipe_.teacher.gives_tokenizer;
    if (data.tokenizer.file.empty() && !given) {
      throw RecipeError(
          "data.tokenizer.file: found nothing, and data.sources does not train a tokenizer; want "
          "a file (tern tokenizer train makes one of a part of the text)");
    }
    bool trains = false;
    for (const SourceConfig& source : data.sources) {
      const std::string at = StrCat("data.sources.", source.name, ".");
      if (source.files.empty())
        throw RecipeError(StrCat(at, "files: found nothing; want at least one file"));
      CheckFetched((at + "files").c_str(), source.files);
      CheckRecord(data, source, at);
      trains |= source.split != SourceSplit::kValidation;
    }
    if (!trains) {
      throw RecipeError(StrCat("data.sources.", data.sources.front().name,
                               ".split: found no source to train on; want train or auto for one"));
    }
  }

  void CheckRecord(const DataConfig& data, const SourceConfig& source,
                   const std::string& at) const {
    if (source.record == SourceRecord::kText) return;
    if (source.format != SourceFormat::kAuto && source.format != SourceFormat::kJsonl &&
        source.format != SourceFormat::kJson) {
      throw RecipeError(
          StrCat(at,
                 "record: found messages or completion in files that are not JSON; want "
                 "format: jsonl or json"));
    }
    if (data.packing == Packing::kStream) {
      throw RecipeError(
          StrCat(at,
                 "record: found messages or completion with data.packing: stream, in which a "
                 "conversation sees the one before it; want samples, or documents"));
    }
  }

  bool HoldsOutText() const {
    const DataConfig& data = recipe_.data;
    return data.validation_fraction > 0 || !data.validation_files.empty() ||
           std::any_of(data.sources.begin(), data.sources.end(), [](const SourceConfig& source) {
             return source.split == SourceSplit::kValidation;
           });
  }

  // What stages must be there for the recipe to keep its word.
  void CheckExpectation() {
    if (recipe_.expect.validation_perplexity_below <= 0) return;
    const bool measured =
        std::any_of(recipe_.stages.begin(), recipe_.stages.end(), [](const Stage& stage) {
          const auto* eval = std::get_if<EvalStage>(&stage);
          return eval != nullptr && eval->split == "validation";
        });
    if (!measured) {
      throw RecipeError(
          "expect.validation_perplexity_below: found no stage that measures it; want - eval: "
          "{perplexity: {split: validation}}");
    }
  }

  void Needs(const Stage& stage, const char* kind) {
    if (!kinds_seen_.contains(kind)) {
      throw RecipeError(StrCat("stages: ", IdOf(stage), " needs ", *kind == 'e' ? "an " : "a ",
                               kind, " stage before it"));
    }
  }

  void NeedsFiles(const Stage& stage) {
    if (!kinds_seen_.contains("quantize")) Needs(stage, "export");
  }

  void Check(const PrepareStage&) {}
  void Check(const ReportStage&) {}

  void Check(const TrainStage& t) {
    const std::string at = t.id + ".";
    if (shape_is_known_ && t.sequence_length > recipe_.model.context_length) {
      throw RecipeError(
          StrCat(at, "sequence_length = ", t.sequence_length,
                 " is longer than model.context_length = ", recipe_.model.context_length));
    }
    const int64_t unit = t.sequence_length * std::max<int64_t>(t.micro_batch, 1);
    if (t.tokens_per_step % unit != 0) {
      const int64_t below = t.tokens_per_step / unit * unit;
      throw RecipeError(StrCat(at, "tokens_per_step = ", t.tokens_per_step,
                               " is not a multiple of ", t.micro_batch > 0 ? "micro_batch x " : "",
                               "sequence_length = ", unit, "; try ", below > 0 ? below : unit));
    }
    CheckSchedule(t);
    CheckScaling(t);
    CheckPrecision(t);
    for (const std::string& warning : CheckLosses(recipe_, t)) warnings_.push_back(warning);
    CheckQuantize(recipe_, t);
    if (t.optimizer.offload && t.device == "cpu") {
      throw RecipeError(StrCat(at, "optimizer.offload is for training on a GPU, and ", at,
                               "device is cpu; leave one of them out"));
    }
    if (t.device != "auto" && t.device != "cpu" && t.device != "cuda") {
      throw RecipeError(StrCat(at, "device: found \"", t.device, "\"; want auto | cpu | cuda"));
    }
  }

  void CheckSchedule(const TrainStage& t) {
    const ScheduleConfig& s = t.schedule;
    const std::string at = t.id + ".schedule.";
    if (s.warmup_steps >= t.steps) {
      throw RecipeError(StrCat(at, "warmup_steps = ", s.warmup_steps, " is not below ", t.id,
                               ".steps = ", t.steps));
    }
    const auto not_above_peak = [&](const char* key, double rate) {
      if (rate > s.peak_lr) {
        throw RecipeError(StrCat(at, key, " = ", rate, " is above ", at, "peak_lr = ", s.peak_lr));
      }
    };
    if (s.kind != ScheduleKind::kConstant) not_above_peak("final_lr", s.final_lr);
    if (s.kind != ScheduleKind::kTwoStage) return;
    not_above_peak("second_lr", s.second_lr);
    if (s.final_lr > s.second_lr) {
      throw RecipeError(
          StrCat(at, "final_lr = ", s.final_lr, " is above ", at, "second_lr = ", s.second_lr));
    }
  }

  void CheckScaling(const TrainStage& t) {
    const LossScalingConfig& s = t.loss_scaling;
    if (s.mode == ScalingMode::kDynamic && s.initial < s.floor) {
      throw RecipeError(StrCat(t.id, ".loss_scaling.initial = ", s.initial, " is below ", t.id,
                               ".loss_scaling.floor = ", s.floor));
    }
    if (s.mode != ScalingMode::kOff && t.precision == Precision::kFp32) {
      warnings_.push_back(
          StrCat(t.id, ".loss_scaling has no use with precision fp32; set loss_scaling.mode: off"));
    }
  }

  void CheckPrecision(const TrainStage& t) {
    if (t.precision != Precision::kFp16) return;
    if (recipe_.model.activation == Activation::kRelu2) {
      throw RecipeError(StrCat(
          t.id, ".precision: fp16 overflows with model.activation: relu2; want bf16 or fp32"));
    }
    if (t.loss_scaling.mode == ScalingMode::kOff) {
      warnings_.push_back(
          StrCat(t.id,
                 ".precision is fp16 and loss_scaling.mode is off: small gradients become 0; set "
                 "loss_scaling.mode: dynamic"));
    }
  }

  void Check(const EvalStage& e) {
    Needs(e, "train");
    if (e.split == "validation" && !HoldsOutText()) {
      throw RecipeError(StrCat("data.validation_fraction: found 0, and ", e.id,
                               " wants validation text; want above 0, "
                               "or data.validation_files"));
    }
    if (e.split != "validation" && e.split != "train") {
      throw RecipeError(
          StrCat(e.id, ".perplexity.split: found \"", e.split, "\"; want validation | train"));
    }
    if (e.recovery && recipe_.teacher.from.empty() && recipe_.start.from.empty()) {
      throw RecipeError(StrCat(e.id,
                               ".recovery: found true, and nothing to compare with; want "
                               "teacher: {from: MODEL} or model: {from: MODEL}"));
    }
    WarnOfReference(e);
  }

  void WarnOfReference(const EvalStage& e) {
    if (!e.recovery || recipe_.teacher_runtime != Runtime::kEngine) return;
    warnings_.push_back(StrCat(e.id,
                               ".recovery: compares blocks, so libtorch runs the teacher there, "
                               "with 4 bytes a weight, whatever teacher.runtime"));
  }

  void Check(const ExportStage& e) {
    Needs(e, "train");
    if (e.formats.empty())
      throw RecipeError(
          StrCat(e.id, ".formats: found an empty list; want at least one, such as gguf/tq2_0"));
    for (const std::string& format : e.formats) {
      if (!exported_.insert(format).second) {
        throw RecipeError(StrCat(e.id, ".formats: ", format,
                                 " is exported twice under the same name; want it once"));
      }
      const std::string why =
          shape_is_known_ ? WhyFormatCannotHold(recipe_.model, format) : std::string();
      if (!why.empty()) throw RecipeError(StrCat(e.id, ".formats: ", why));
    }
    if (e.embedding != "f16" && e.embedding != "f32" && e.embedding != "q8_0") {
      throw RecipeError(
          StrCat(e.id, ".embedding: found \"", e.embedding, "\"; want f16 | f32 | q8_0"));
    }
    if (shape_is_known_ && e.embedding == "q8_0" && recipe_.model.hidden_size % 32 != 0) {
      throw RecipeError(
          StrCat(e.id, ".embedding: q8_0 wants rows of a multiple of 32; model.hidden_size = ",
                 recipe_.model.hidden_size));
    }
    if (e.checkpoint != "last" && e.checkpoint != "best") {
      throw RecipeError(
          StrCat(e.id, ".checkpoint: found \"", e.checkpoint, "\"; want last | best"));
    }
  }

  void Check(const QuantizeStage& q) { CheckQuantizeStage(recipe_, q); }
  void Check(const VerifyStage& v) { NeedsFiles(v); }
  void Check(const GenerateStage& g) { NeedsFiles(g); }

  const Recipe& recipe_;
  const bool shape_is_known_;  // False: model.from is not opened (job/start.h)
  std::set<std::string> kinds_seen_;
  std::set<std::string> exported_;  // Formats
  std::vector<std::string> warnings_;
};

}  // namespace

std::vector<std::string> CheckRecipe(const Recipe& recipe) { return Checker(recipe).Run(); }

std::vector<std::string> CheckRecipe(const LoadedRecipe& loaded) {
  try {
    return CheckRecipe(loaded.recipe);
  } catch (const RecipeError& error) {
    // The message opens with the key path that the rule is about; say where its value comes from.
    const std::string message = error.what();
    const std::string key = message.substr(0, message.find_first_of(" :"));
    const auto origin = loaded.origins.find(key);
    const bool written = origin != loaded.origins.end() && origin->second != "default";
    throw RecipeError(StrCat(written ? origin->second : loaded.path, ": ", message));
  }
}

}  // namespace tern::recipe
