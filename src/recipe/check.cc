// See check.h.
#include "recipe/check.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "recipe/schema.h"

namespace tern::recipe {
namespace {

class Checker {
 public:
  explicit Checker(const Recipe& recipe) : recipe_(recipe) {}

  std::vector<std::string> Run() {
    ValidateModelConfig(recipe_.model);
    CheckData();
    std::set<std::string> ids;
    for (const Stage& stage : recipe_.stages) {
      if (!ids.insert(IdOf(stage)).second) {
        throw RecipeError(StrCat("stages: two stages have the id ", IdOf(stage), "; give the second one id: another_name"));
      }
      std::visit([&](const auto& s) { Check(s); }, stage);
      kinds_seen_.insert(KindOf(stage));
    }
    return warnings_;
  }

 private:
  void CheckData() {
    if (recipe_.data.files.empty()) {
      throw RecipeError("data.files: empty; name at least one text file, such as 'data.files=[my/*.txt]'");
    }
    const bool safe = !recipe_.name.empty() && recipe_.name.find('/') == std::string::npos && recipe_.name[0] != '.';
    if (!safe) throw RecipeError(StrCat("name: found \"", recipe_.name, "\"; want a folder name without / or a leading dot"));
  }

  void Needs(const Stage& stage, const char* kind) {
    if (!kinds_seen_.contains(kind)) {
      throw RecipeError(StrCat("stages: ", IdOf(stage), " needs a ", kind, " stage before it"));
    }
  }

  void Check(const PrepareStage&) {}
  void Check(const ReportStage&) {}

  void Check(const TrainStage& t) {
    const std::string at = t.id + ".";
    if (t.sequence_length > recipe_.model.context_length) {
      throw RecipeError(StrCat(at, "sequence_length = ", t.sequence_length, " is longer than model.context_length = ",
                               recipe_.model.context_length));
    }
    const int64_t unit = t.sequence_length * std::max<int64_t>(t.micro_batch, 1);
    if (t.tokens_per_step % unit != 0) {
      const int64_t below = t.tokens_per_step / unit * unit;
      throw RecipeError(StrCat(at, "tokens_per_step = ", t.tokens_per_step, " is not a multiple of ",
                               t.micro_batch > 0 ? "micro_batch x " : "", "sequence_length = ", unit, "; try ",
                               below > 0 ? below : unit));
    }
    if (t.schedule.warmup_steps >= t.steps) {
      throw RecipeError(StrCat(at, "schedule.warmup_steps = ", t.schedule.warmup_steps, " is not below ", at, "steps = ",
                               t.steps));
    }
    CheckPrecision(t);
    if (t.device != "auto" && t.device != "cpu" && t.device != "cuda") {
      throw RecipeError(StrCat(at, "device: found \"", t.device, "\"; want auto | cpu | cuda"));
    }
  }

  void CheckPrecision(const TrainStage& t) {
    if (t.precision != Precision::kFp16) return;
    if (recipe_.model.activation == Activation::kRelu2) {
      throw RecipeError(StrCat(t.id, ".precision: fp16 overflows with model.activation: relu2; want bf16 or fp32"));
    }
    if (t.loss_scaling.mode == ScalingMode::kOff) {
      warnings_.push_back(StrCat(t.id, ".precision is fp16 and loss_scaling.mode is off: small gradients become 0; set "
                                 "loss_scaling.mode: dynamic"));
    }
  }

  void Check(const EvalStage& e) {
    Needs(e, "train");
    if (e.split != "validation" && e.split != "train") {
      throw RecipeError(StrCat(e.id, ".perplexity.split: found \"", e.split, "\"; want validation | train"));
    }
  }

  void Check(const ExportStage& e) {
    Needs(e, "train");
    if (e.formats.empty()) throw RecipeError(StrCat(e.id, ".formats: empty; name at least one, such as gguf/tq2_0"));
    for (const std::string& format : e.formats) {
      const std::string why = WhyFormatCannotHold(recipe_.model, format);
      if (!why.empty()) throw RecipeError(StrCat(e.id, ".formats: ", why));
    }
    if (e.embedding != "f16" && e.embedding != "f32" && e.embedding != "q8_0") {
      throw RecipeError(StrCat(e.id, ".embedding: found \"", e.embedding, "\"; want f16 | f32 | q8_0"));
    }
    if (e.embedding == "q8_0" && recipe_.model.hidden_size % 32 != 0) {
      throw RecipeError(StrCat(e.id, ".embedding: q8_0 wants rows of a multiple of 32; model.hidden_size = ",
                               recipe_.model.hidden_size));
    }
    if (e.checkpoint != "last" && e.checkpoint != "best") {
      throw RecipeError(StrCat(e.id, ".checkpoint: found \"", e.checkpoint, "\"; want last | best"));
    }
  }

  void Check(const VerifyStage& v) { Needs(v, "export"); }
  void Check(const GenerateStage& g) { Needs(g, "export"); }

  const Recipe& recipe_;
  std::set<std::string> kinds_seen_;
  std::vector<std::string> warnings_;
};

}  // namespace

std::vector<std::string> CheckRecipe(const Recipe& recipe) { return Checker(recipe).Run(); }

}  // namespace tern::recipe
