// See frozen.h.
#include "recipe/frozen.h"

#include <fnmatch.h>

#include <algorithm>

#include "base/error.h"
#include "base/progress.h"
#include "recipe/check_quantize.h"

namespace tern::recipe {

bool MatchesName(const std::string& pattern, const std::string& parameter) {
  const std::string layer = parameter.substr(0, parameter.rfind('.'));
  const std::string last = layer.substr(layer.rfind('.') + 1);
  return ::fnmatch(pattern.c_str(), layer.c_str(), 0) == 0 ||
         ::fnmatch(pattern.c_str(), last.c_str(), 0) == 0;
}

std::vector<bool> FrozenParameters(const TrainStage& stage, const ModelConfig& model) {
  const std::vector<ParameterSpec> table = ParameterTable(model);
  std::vector<bool> frozen(table.size(), stage.lora.rank > 0);
  for (const std::string& pattern : stage.freeze) {
    bool matched = false;
    for (size_t i = 0; i < table.size(); ++i) {
      if (!MatchesName(pattern, table[i].name)) continue;
      frozen[i] = matched = true;
    }
    if (matched) continue;
    const bool tied = model.tied_head && pattern == "lm_head";
    throw RecipeError(StrCat(stage.id, ".freeze: found \"", pattern,
                             "\", which matches no parameter",
                             tied ? "; the head is the embedding's, model.embed_tokens"
                                  : "; they are called like model.embed_tokens, "
                                    "model.layers.0.mlp.up_proj or model.norm"));
  }
  const bool all = std::find(frozen.begin(), frozen.end(), false) == frozen.end();
  if (all && stage.lora.rank == 0 && !LearnsScales(stage.quantize)) {
    throw RecipeError(
        StrCat(stage.id,
               ".freeze: found patterns that match every parameter; want some left to "
               "train, or quantize.rules that learn scales"));
  }
  return frozen;
}

int64_t FrozenWeights(const TrainStage& stage, const ModelConfig& model) {
  const std::vector<ParameterSpec> table = ParameterTable(model);
  const std::vector<bool> frozen = FrozenParameters(stage, model);
  int64_t weights = 0;
  for (size_t i = 0; i < table.size(); ++i)
    if (frozen[i]) weights += table[i].Count();
  return weights;
}

std::string DescribeFrozen(const TrainStage& stage, const ModelConfig& model) {
  if (stage.freeze.empty()) return "";
  const std::vector<bool> frozen = FrozenParameters(stage, model);
  int64_t all = 0;
  for (const ParameterSpec& spec : ParameterTable(model)) all += spec.Count();
  return StrCat(
      std::count(frozen.begin(), frozen.end(), true), " of ", frozen.size(),
      " parameters stay as they are: ", FormatSi(static_cast<double>(FrozenWeights(stage, model))),
      " of ", FormatSi(static_cast<double>(all)), " weights");
}

}  // namespace tern::recipe
