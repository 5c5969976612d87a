// See layer_rules.h.
#include "qat/layer_rules.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "base/progress.h"
#include "qat/fake_quantize.h"
#include "quant/hadamard.h"
#include "quant/weight_format.h"
#include "recipe/frozen.h"

namespace tern::qat {
namespace {

// Smaller blocks mix too few inputs to spread an outlier.
constexpr int64_t kLeastHadamard = 16;

std::vector<ParameterSpec> Linears(const ModelConfig& model) {
  std::vector<ParameterSpec> linears;
  for (ParameterSpec& spec : ParameterTable(model)) {
    if (spec.role == ParameterRole::kLinear) linears.push_back(std::move(spec));
  }
  return linears;
}

void CheckDivides(const recipe::QuantizeRule& rule, const ParameterSpec& spec,
                  const std::string& at) {
  std::optional<quant::WeightFormat> format = FormatOf(rule);
  if (!format && LearnedOf(rule)) format = quant::IntFormat(2, rule.Group());  // Its groups alone
  if (!format) return;
  try {
    quant::CheckGroups(*format, spec.shape[1], spec.name);
  } catch (const InputError& error) {
    throw RecipeError(StrCat(at, ".group: ", error.what()));
  }
}

void CheckRotates(const recipe::QuantizeRule& rule, const ParameterSpec& spec,
                  const std::string& at) {
  const int64_t block = quant::HadamardBlock(spec.shape[1]);
  if (!rule.hadamard || block >= kLeastHadamard) return;
  throw RecipeError(StrCat(at, ".hadamard: ", spec.name, " has ", spec.shape[1],
                           " inputs, which divide into blocks of ", block,
                           " at most; want a multiple of ", kLeastHadamard, ", or false"));
}

// A BitLinear's weights and int8 inputs are its own; a rule may change the inputs.
void CheckBitLinear(const recipe::QuantizeRule& rule, const std::string& at) {
  if (rule.weights != recipe::WeightQuantizer::kNone) {
    throw RecipeError(StrCat(at, ".weights: found ", NameOf(rule.weights),
                             ", and model.linear is bitlinear, which quantizes every linear layer "
                             "itself; want none, or model.linear: dense"));
  }
  using recipe::InputQuantizer;
  const bool dynamic =
      rule.inputs == InputQuantizer::kInt8Dynamic || rule.inputs == InputQuantizer::kFp8Dynamic;
  if (rule.inputs != InputQuantizer::kInt8 && !dynamic) return;
  throw RecipeError(StrCat(at, ".inputs: found ", NameOf(rule.inputs),
                           dynamic ? ", whose products are not those of model.linear: bitlinear"
                                   : ", which is what model.linear: bitlinear does",
                           "; want none, int4_absmean or int4_absmax"));
}

bool DoesNothing(const recipe::QuantizeRule& rule) {
  return rule.weights == recipe::WeightQuantizer::kNone &&
         rule.inputs == recipe::InputQuantizer::kNone && !rule.hadamard;
}

// Index of a name in a table of the schema.
template <class Names>
size_t IndexOf(const Names& names, const std::string& name) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (name == names[i]) return i;
  }
  throw FormatError(StrCat("found the quantizer \"", name, "\", which this version does not know"));
}

}  // namespace

const char* NameOf(recipe::WeightQuantizer weights) {
  return recipe::WeightQuantizerNames()[static_cast<size_t>(weights)];
}

recipe::WeightQuantizer QuantizerFromName(const std::string& name) {
  return static_cast<recipe::WeightQuantizer>(IndexOf(recipe::WeightQuantizerNames(), name));
}

const char* NameOf(recipe::InputQuantizer inputs) {
  return recipe::InputQuantizerNames()[static_cast<size_t>(inputs)];
}

recipe::InputQuantizer InputQuantizerFromName(const std::string& name) {
  return static_cast<recipe::InputQuantizer>(IndexOf(recipe::InputQuantizerNames(), name));
}

std::map<std::string, nn::InputTransform> InputsOf(const LayerRules& rules) {
  std::map<std::string, nn::InputTransform> inputs;
  for (const auto& [name, rule] : rules) {
    nn::InputTransform transform{nn::InputCodes::kNone, rule.hadamard};
    switch (rule.inputs) {
      case recipe::InputQuantizer::kNone:
        break;
      case recipe::InputQuantizer::kInt8:
        transform.codes = nn::InputCodes::kInt8;
        break;
      case recipe::InputQuantizer::kInt4Absmean:
        transform.codes = nn::InputCodes::kInt4Absmean;
        break;
      case recipe::InputQuantizer::kInt4Absmax:
        transform.codes = nn::InputCodes::kInt4Absmax;
        break;
      case recipe::InputQuantizer::kInt8Dynamic:
        transform.codes = nn::InputCodes::kInt8Dynamic;
        break;
      case recipe::InputQuantizer::kFp8Dynamic:
        transform.codes = nn::InputCodes::kFp8Dynamic;
        break;
    }
    if (transform != nn::InputTransform{}) inputs.emplace(name, transform);
  }
  return inputs;
}

std::vector<ParameterSpec> MatchLayers(const std::vector<std::string>& patterns,
                                       const ModelConfig& model, const std::string& key) {
  const std::vector<ParameterSpec> linears = Linears(model);
  std::vector<ParameterSpec> matched;
  for (const std::string& pattern : patterns) {
    const size_t before = matched.size();
    std::copy_if(
        linears.begin(), linears.end(), std::back_inserter(matched),
        [&](const ParameterSpec& spec) { return recipe::MatchesName(pattern, spec.name); });
    if (matched.size() > before) continue;
    throw RecipeError(StrCat(
        key, ": found \"", pattern, "\", which matches no linear layer; they are called like ",
        linears.front().name.substr(0, linears.front().name.rfind('.')), " or down_proj"));
  }
  return matched;
}

LayerRules MatchRules(const recipe::QuantizeConfig& config, const ModelConfig& model,
                      const std::string& stage_id) {
  LayerRules rules;
  if (config.rules.empty()) return rules;
  const std::string at = stage_id + ".quantize.rules";
  for (const recipe::QuantizeRule& rule : config.rules) {
    const std::string key = StrCat(at, ".", rule.name);
    if (model.linear == LinearKind::kBitLinear) CheckBitLinear(rule, key);
    if (rule.layers.empty()) throw RecipeError(key + ".layers: found an empty list; want patterns");
    for (const ParameterSpec& spec : MatchLayers(rule.layers, model, key + ".layers")) {
      CheckDivides(rule, spec, key);
      CheckRotates(rule, spec, key);
      for (const std::string& rung : config.progressive) {
        if (rule.weights == recipe::WeightQuantizer::kNone) break;
        recipe::QuantizeRule before = rule;
        before.weights = QuantizerFromName(rung);
        CheckDivides(before, spec, key);
      }
      rules[spec.name] = rule;
    }
  }
  for (const recipe::QuantizeRule& rule : config.rules) {
    const bool has_layers = std::any_of(rules.begin(), rules.end(), [&](const auto& entry) {
      return entry.second.name == rule.name;
    });
    if (has_layers) continue;
    throw RecipeError(StrCat(at, ".", rule.name, ".layers: rules after it have all of its layers, ",
                             "for the last that matches has a layer; put it behind them, or leave ",
                             "it out"));
  }
  std::erase_if(rules, [](const auto& entry) { return DoesNothing(entry.second); });
  return rules;
}

std::vector<std::string> Describe(const LayerRules& rules, const ModelConfig& model) {
  std::map<std::string, std::pair<int64_t, int64_t>> counts;  // Matrices, weights
  for (const ParameterSpec& spec : Linears(model)) {
    const auto rule = rules.find(spec.name);
    auto& [matrices, weights] =
        counts[rule == rules.end() ? "as they are"
                                   : StrCat(rule->second.name, ": ", Describe(rule->second))];
    ++matrices;
    weights += spec.Count();
  }
  std::vector<std::string> lines;
  for (const auto& [what, count] : counts) {
    lines.push_back(StrCat(what, ": ", count.first, " matrices, ",
                           FormatSi(static_cast<double>(count.second)), " weights"));
  }
  return lines;
}

}  // namespace tern::qat
