// See layer_rules.h.
#include "qat/layer_rules.h"

#include <fnmatch.h>

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "base/progress.h"
#include "qat/fake_quantize.h"
#include "quant/weight_format.h"

namespace tern::qat {
namespace {

constexpr std::string_view kWeight = ".weight";

bool Matches(const std::string& pattern, const std::string& parameter) {
  const std::string layer = parameter.substr(0, parameter.size() - kWeight.size());
  const std::string last = layer.substr(layer.rfind('.') + 1);
  return ::fnmatch(pattern.c_str(), layer.c_str(), 0) == 0 ||
         ::fnmatch(pattern.c_str(), last.c_str(), 0) == 0;
}

std::vector<ParameterSpec> Linears(const ModelConfig& model) {
  std::vector<ParameterSpec> linears;
  for (ParameterSpec& spec : ParameterTable(model)) {
    if (spec.role == ParameterRole::kLinear) linears.push_back(std::move(spec));
  }
  return linears;
}

void CheckDivides(const recipe::QuantizeRule& rule, const ParameterSpec& spec,
                  const std::string& at) {
  const std::optional<quant::WeightFormat> format = FormatOf(rule);
  if (!format) return;
  try {
    quant::CheckGroups(*format, spec.shape[1], spec.name);
  } catch (const InputError& error) {
    throw RecipeError(StrCat(at, ".group: ", error.what()));
  }
}

}  // namespace

const char* NameOf(recipe::WeightQuantizer weights) {
  return recipe::WeightQuantizerNames()[static_cast<size_t>(weights)];
}

recipe::WeightQuantizer QuantizerFromName(const std::string& name) {
  const auto names = recipe::WeightQuantizerNames();
  for (size_t i = 0; i < names.size(); ++i) {
    if (name == names[i]) return static_cast<recipe::WeightQuantizer>(i);
  }
  throw FormatError(StrCat("found the quantizer \"", name, "\", which this version does not know"));
}

std::vector<ParameterSpec> MatchLayers(const std::vector<std::string>& patterns,
                                       const ModelConfig& model, const std::string& key) {
  const std::vector<ParameterSpec> linears = Linears(model);
  std::vector<ParameterSpec> matched;
  for (const std::string& pattern : patterns) {
    const size_t before = matched.size();
    std::copy_if(linears.begin(), linears.end(), std::back_inserter(matched),
                 [&](const ParameterSpec& spec) { return Matches(pattern, spec.name); });
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
  if (model.linear == LinearKind::kBitLinear) {
    throw RecipeError(StrCat(at,
                             ": found rules, and model.linear is bitlinear, which quantizes "
                             "every linear layer itself; want model.linear: dense"));
  }
  for (const recipe::QuantizeRule& rule : config.rules) {
    const std::string key = StrCat(at, ".", rule.name);
    for (const ParameterSpec& spec : MatchLayers(rule.layers, model, key + ".layers")) {
      CheckDivides(rule, spec, key);
      for (const std::string& rung : config.progressive) {
        recipe::QuantizeRule before = rule;
        before.weights = QuantizerFromName(rung);
        CheckDivides(before, spec, key);
      }
      rules[spec.name] = rule;
    }
  }
  std::erase_if(rules, [](const auto& entry) {
    return entry.second.weights == recipe::WeightQuantizer::kNone;
  });
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
                           FormatSi(static_cast<double>(count.second)), "weights"));
  }
  return lines;
}

}  // namespace tern::qat
