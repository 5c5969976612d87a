// See check_quantize.h.
#include "recipe/check_quantize.h"

#include <algorithm>

#include "arch/format_names.h"
#include "base/error.h"
#include "recipe/schema.h"

namespace tern::recipe {
namespace {

// Formats that hold any fp32 value, and so every quantized one.
constexpr const char* kExactFormats[] = {"gguf/f32", "hf/f32", "tern/model"};
constexpr const char* kLadder[] = {"int8", "int4", "int3", "int2"};

template <size_t n>
bool Has(const char* const (&words)[n], const std::string& word) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

// Levels that are those of `packed`, one of HoldsTrainedCodes: integers or small floats times a
// scale of the format's own type.
bool HoldsLevels(std::string_view packed, WeightQuantizer weights) {
  const bool gguf = packed == kPackedGguf;
  switch (weights) {
    case WeightQuantizer::kNone:
      return true;
    case WeightQuantizer::kQ4_0:
    case WeightQuantizer::kQ8_0:
      return gguf;
    case WeightQuantizer::kInt8:
    case WeightQuantizer::kInt4:
    case WeightQuantizer::kInt3:
    case WeightQuantizer::kInt2:
    case WeightQuantizer::kFp8:
    case WeightQuantizer::kFp8Tensor:
    case WeightQuantizer::kFp8Block:
    case WeightQuantizer::kNvfp4:
    case WeightQuantizer::kMxfp4:
    case WeightQuantizer::kLsq8:
    case WeightQuantizer::kLsq4:
    case WeightQuantizer::kLsq3:
    case WeightQuantizer::kSeq2:
    case WeightQuantizer::kSign:
      return !gguf;
    case WeightQuantizer::kTernary:
    case WeightQuantizer::kSeqTernary:
    case WeightQuantizer::kFp8E5m2:
    case WeightQuantizer::kFp8E5m2Tensor:
    case WeightQuantizer::kFp8E5m2Block:
      return false;
  }
  __builtin_unreachable();
}

bool IsInteger(WeightQuantizer weights) {
  return weights >= WeightQuantizer::kInt8 && weights <= WeightQuantizer::kInt2;
}

bool LearnsScales(WeightQuantizer weights) { return weights >= WeightQuantizer::kLsq8; }

const char* NameOf(const QuantizeRule& rule) {
  return WeightQuantizerNames()[static_cast<size_t>(rule.weights)];
}

// Keys of integers in groups beside another quantizer. A recipe that says a default says nothing.
void CheckUnused(const QuantizeConfig& q, const QuantizeRule& rule, const std::string& at) {
  if (IsInteger(rule.weights) || !q.progressive.empty()) return;
  const QuantizeRule plain;
  const bool group = rule.group != plain.group && !LearnsScales(rule.weights);
  const char* unused = group ? "group" : rule.symmetric != plain.symmetric ? "symmetric" : nullptr;
  if (unused == nullptr) return;
  throw RecipeError(StrCat(at, "rules.", rule.name, ".", unused, ": found beside weights: ",
                           NameOf(rule), ", which has its own; want weights: int8 to int2",
                           group ? ", lsq, seq or sign" : "", ", or no ", unused));
}

// The scales of the model that a training starts from are those of its groups of integers.
void CheckStartScales(const Recipe& recipe, const TrainStage& stage, const QuantizeRule& rule) {
  if (rule.scales == ScaleSource::kWeights) return;
  const char* why = nullptr;
  if (!IsInteger(rule.weights)) why = "beside weights that are not int8 to int2";
  if (rule.rounding != Rounding::kNearest) why = "beside rounding: stochastic, which finds its own";
  if (rule.hadamard) why = "beside hadamard: true, which makes other weights";
  if (!stage.quantize.progressive.empty()) why = "beside progressive, which changes the bits";
  if (recipe.start.from.empty()) why = "without model.from";
  if (StageBefore<TrainStage>(recipe, stage.id) != nullptr)
    why = "in a second training, whose start is trained already";
  if (why == nullptr) return;
  throw RecipeError(StrCat(stage.id, ".quantize.rules.", rule.name, ".scales: found start ", why,
                           "; want scales: weights"));
}

void CheckRounding(const QuantizeRule& rule, const std::string& at) {
  if (rule.rounding == Rounding::kNearest) return;
  if (rule.weights != WeightQuantizer::kNone && !LearnsScales(rule.weights)) return;
  throw RecipeError(
      StrCat(at, "rules.", rule.name, ".rounding: found stochastic with weights: ", NameOf(rule),
             rule.weights == WeightQuantizer::kNone
                 ? ", which rounds nothing"
                 : ", the gradient of whose learned scale is that of rounding to the nearest",
             "; want nearest, or weights: ternary, int8 to int2, fp8, nvfp4, mxfp4, q4_0, q8_0"));
}

bool Quantizes(const TrainStage& stage) {
  return std::any_of(
      stage.quantize.rules.begin(), stage.quantize.rules.end(),
      [](const QuantizeRule& rule) { return rule.weights != WeightQuantizer::kNone; });
}

bool TransformsInputs(const TrainStage& stage) {
  return std::any_of(stage.quantize.rules.begin(), stage.quantize.rules.end(),
                     [](const QuantizeRule& rule) {
                       return rule.inputs != InputQuantizer::kNone || rule.hadamard;
                     });
}

void CheckPacked(const ExportStage& exported, const TrainStage& stage, std::string_view format) {
  if (!Quantizes(stage)) {
    throw RecipeError(
        StrCat(exported.id, ".formats: ", format, " holds what quantize.rules train, and ",
               stage.id, ".quantize has none; want rules, or hf/bf16, which tern quantize takes"));
  }
  for (const QuantizeRule& rule : stage.quantize.rules) {
    if (HoldsLevels(format, rule.weights)) continue;
    throw RecipeError(StrCat(
        exported.id, ".formats: ", format, " cannot hold ", NameOf(rule), " of ", stage.id,
        ".quantize.rules.", rule.name,
        format == kPackedGguf
            ? ": its matrices are q4_0 and q8_0; want weights: q4_0 or q8_0, "
            : ": its levels are not integers or E4M3 times a scale in bf16; want ",
        HoldsLevels(kPackedGguf, rule.weights) ? "gguf/quantized, " : "", "hf/f32 or gguf/f32"));
  }
}

// Whether `format` says of the rule's layers what was done to their inputs: compressed-tensors'
// input_activations do, dynamic ones of a token, beside weights of 8 bits of the same kind with a
// scale a row or matrix, which are what engines multiply in 8 bits.
bool HoldsInputs(std::string_view format, const QuantizeRule& rule) {
  if (rule.hadamard) return false;
  if (rule.inputs == InputQuantizer::kNone) return true;
  if (format != kPackedFormat) return false;
  const WeightQuantizer weights = rule.weights;
  const bool int8 = (weights == WeightQuantizer::kLsq8 || weights == WeightQuantizer::kInt8) &&
                    rule.Group() == 0 && rule.symmetric;
  const bool fp8 = weights == WeightQuantizer::kFp8 || weights == WeightQuantizer::kFp8Tensor;
  return (int8 && rule.inputs == InputQuantizer::kInt8Dynamic) ||
         (fp8 && rule.inputs == InputQuantizer::kFp8Dynamic);
}

std::string GroupOf(const QuantizeRule& rule) {
  const bool has = IsInteger(rule.weights) || LearnsScales(rule.weights);
  return has ? StrCat(", group: ", rule.Group()) : "";
}

std::string InputsOf(const QuantizeRule& rule) {
  const bool codes = rule.inputs != InputQuantizer::kNone;
  return StrCat(
      codes ? StrCat("inputs: ", InputQuantizerNames()[static_cast<size_t>(rule.inputs)]) : "",
      codes && rule.hadamard ? " and " : "", rule.hadamard ? "hadamard: true" : "");
}

// A program that reads a file which does not say it would run its layers with other numbers.
void CheckInputsHeld(const ExportStage& exported, const TrainStage& stage,
                     const std::string& format) {
  for (const QuantizeRule& rule : stage.quantize.rules) {
    if (HoldsInputs(format, rule)) continue;
    const bool codes = rule.inputs != InputQuantizer::kNone;
    throw RecipeError(StrCat(
        exported.id, ".formats: ", format, " cannot hold ", InputsOf(rule), " of ", stage.id,
        ".quantize.rules.", rule.name, " (weights: ", NameOf(rule), GroupOf(rule),
        rule.symmetric ? "" : ", symmetric: false",
        "): another program would compute other numbers than were trained; ", kPackedFormat,
        " alone has a place for inputs, int8_dynamic of weights: int8 or lsq8 with group: 0 and "
        "symmetric: true, and "
        "fp8_dynamic of fp8 or fp8_tensor; want that, ",
        codes ? "inputs: none" : "", codes && rule.hadamard ? " and " : "",
        rule.hadamard ? "hadamard: false" : "", ", or no export"));
  }
}

// FP8 layers are stored alike whether their inputs are rounded or not, and which of them are is
// then a matter of names, which this program's readers do not go by (docs/formats).
void CheckInputsDiffer(const ExportStage& exported, const TrainStage& stage) {
  const QuantizeRule* first[2] = {};  // Of fp8, fp8_tensor
  for (const QuantizeRule& rule : stage.quantize.rules) {
    const bool tensor = rule.weights == WeightQuantizer::kFp8Tensor;
    if (!tensor && rule.weights != WeightQuantizer::kFp8) continue;
    const QuantizeRule*& other = first[tensor ? 1 : 0];
    if (other == nullptr) other = &rule;
    if (other->inputs == rule.inputs) continue;
    throw RecipeError(StrCat(exported.id, ".formats: ", kPackedFormat, " with ", stage.id,
                             ".quantize.rules.", other->name, " and ", rule.name,
                             ", of the same weights: ", NameOf(rule),
                             " with inputs and without, which could not be told apart when it is "
                             "read; want inputs: fp8_dynamic in both or none"));
  }
}

void CheckExports(const Recipe& recipe, const TrainStage& stage) {
  for (const Stage& other : recipe.stages) {
    const auto* exported = std::get_if<ExportStage>(&other);
    if (exported == nullptr) continue;
    const auto* trained = StageBefore<TrainStage>(recipe, exported->id);
    if (trained == nullptr || trained->id != stage.id) continue;
    for (const std::string& format : exported->formats) {
      CheckInputsHeld(*exported, stage, format);
      if (format == kPackedFormat) CheckInputsDiffer(*exported, stage);
      if (HoldsTrainedCodes(format)) CheckPacked(*exported, stage, format);
      if (HoldsTrainedCodes(format) || Has(kExactFormats, format) || !Quantizes(stage)) continue;
      throw RecipeError(StrCat(exported->id, ".formats: ", format, " would round what ", stage.id,
                               ".quantize makes of the weights: it would not ship what was "
                               "trained; want ",
                               kPackedFormat, ", ", kPackedGguf,
                               ", gguf/f32, hf/f32 or tern/model, which hold it exactly"));
    }
  }
}

}  // namespace

int64_t QuantizeRule::Group() const {
  constexpr int64_t kIntegers = 64;
  if (group >= 0) return group;
  return LearnsScales(weights) ? 0 : kIntegers;
}

bool LearnsScales(const QuantizeConfig& config) {
  return std::any_of(config.rules.begin(), config.rules.end(),
                     [](const QuantizeRule& rule) { return LearnsScales(rule.weights); });
}

void CheckQuantize(const Recipe& recipe, const TrainStage& stage) {
  const QuantizeConfig& q = stage.quantize;
  const std::string at = stage.id + ".quantize.";
  for (const std::string& rung : q.progressive) {
    if (Has(kLadder, rung)) continue;
    throw RecipeError(
        StrCat(at, "progressive: found ", rung, "; want some of int8, int4, int3, int2"));
  }
  if (!q.progressive.empty() && q.rules.empty())
    throw RecipeError(StrCat(at, "progressive: found a list and no rules; want rules"));
  if (!q.progressive.empty() && q.progressive_until >= 1) {
    throw RecipeError(StrCat(at, "progressive_until = ", q.progressive_until,
                             " leaves no step for the rules' own quantizers, which ship; want "
                             "below 1"));
  }
  if (q.progressive.empty() && q.progressive_until != QuantizeConfig{}.progressive_until) {
    throw RecipeError(StrCat(at, "progressive_until: found ", q.progressive_until,
                             " without progressive; want both or none"));
  }
  for (const QuantizeRule& rule : q.rules) {
    CheckUnused(q, rule, at);
    CheckStartScales(recipe, stage, rule);
    CheckRounding(rule, at);
  }
  if (stage.optimizer.scale_lr_factor != 1 && !LearnsScales(q)) {
    throw RecipeError(
        StrCat(stage.id, ".optimizer.scale_lr_factor = ", stage.optimizer.scale_lr_factor,
               ", and no quantize.rules learn a scale; want 1, or weights: lsq8, lsq4, "
               "lsq3, seq2, seq_ternary or sign"));
  }
  const bool quantizes = Quantizes(stage) || TransformsInputs(stage);
  if (q.warmup_steps > 0 && !quantizes && recipe.model.linear != LinearKind::kBitLinear) {
    throw RecipeError(StrCat(at, "warmup_steps = ", q.warmup_steps,
                             ", and nothing is quantized; want rules, or model.linear: bitlinear"));
  }
  if (q.warmup_steps >= stage.steps && q.warmup_steps > 0) {
    throw RecipeError(StrCat(at, "warmup_steps = ", q.warmup_steps, " is not below ", stage.id,
                             ".steps = ", stage.steps, ": the last steps must train what ships"));
  }
  const bool adapts = stage.lora.rank > 0;
  if (adapts && !stage.freeze.empty()) {
    throw RecipeError(StrCat(stage.id,
                             ".freeze: found patterns beside lora, which leaves the whole ",
                             "model as it is; want one of them"));
  }
  if ((adapts || !stage.freeze.empty()) &&
      stage.activation_checkpointing == ActivationCheckpointing::kBlock) {
    throw RecipeError(StrCat(stage.id, ".activation_checkpointing: found block beside ",
                             adapts ? "lora" : "freeze",
                             ", whose first block may have nothing to differentiate; want none"));
  }
  CheckExports(recipe, stage);
}

}  // namespace tern::recipe
