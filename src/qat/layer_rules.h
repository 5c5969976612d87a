// Which linear layers a recipe quantizes, and how.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "nn/input_transform.h"
#include "recipe/recipe.h"

namespace tern::qat {

// Rule by parameter name ("model.layers.0.mlp.up_proj.weight"), of the linear layers that any rule
// takes; of several rules the last in the recipe's order. A pattern is a shell glob over the name
// without ".weight", or over its last part ("down_proj"); rules that do nothing to weights and
// inputs leave layers out.
using LayerRules = std::map<std::string, recipe::QuantizeRule>;

// Throws RecipeError for a pattern that matches nothing, for groups that do not divide a row
// (naming the layer), rows that cannot be rotated, and on a model whose layers are ternary already
// for rules that do more than change the codes of their inputs.
LayerRules MatchRules(const recipe::QuantizeConfig& config, const ModelConfig& model,
                      const std::string& stage_id);

// What the rules do to inputs, by parameter name, for Decoder::WithInputs.
std::map<std::string, nn::InputTransform> InputsOf(const LayerRules& rules);

// The linear layers that any of the patterns matches, in the order of the patterns and of
// ParameterTable. Throws RecipeError, which begins with `key`, for a pattern that matches nothing.
std::vector<ParameterSpec> MatchLayers(const std::vector<std::string>& patterns,
                                       const ModelConfig& model, const std::string& key);

// Where a checkpoint keeps what is trained beside the decoder.
inline constexpr std::string_view kExtraGroup = "/extra/";

// One line a rule: what it is, matrices and weights that it takes; and one for what stays as it is.
std::vector<std::string> Describe(const LayerRules& rules, const ModelConfig& model);

// "int4", "lsq3", ...: as recipes name it.
const char* NameOf(recipe::WeightQuantizer weights);
// Throws FormatError for another name.
recipe::WeightQuantizer QuantizerFromName(const std::string& name);
const char* NameOf(recipe::InputQuantizer inputs);
recipe::InputQuantizer InputQuantizerFromName(const std::string& name);

}  // namespace tern::qat
