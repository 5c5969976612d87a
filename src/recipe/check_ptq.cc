// See check_ptq.h.
#include "recipe/check_ptq.h"

#include <algorithm>

#include "base/error.h"
#include "recipe/schema.h"

namespace tern::recipe {

void CheckQuantizeStage(const Recipe& recipe, const QuantizeStage& stage) {
  const TrainStage* train = StageBefore<TrainStage>(recipe, stage.id);
  if (train == nullptr && recipe.start.from.empty()) {
    throw RecipeError(
        StrCat("stages: ", stage.id, " needs a train stage before it, or model: {from: MODEL}"));
  }
  const bool ternary = train != nullptr && recipe.model.linear == LinearKind::kBitLinear;
  const bool quantized =
      train != nullptr &&
      std::any_of(train->quantize.rules.begin(), train->quantize.rules.end(),
                  [](const QuantizeRule& rule) { return rule.weights != WeightQuantizer::kNone; });
  if (ternary || quantized) {
    throw RecipeError(StrCat(stage.id, ".to: what ", train->id, " trains is ",
                             ternary ? "ternary" : "quantized by its rules",
                             " already, and would be rounded once more; want an export stage (",
                             ternary ? "gguf/tq2_0, hf/bitnet" : "hf/compressed_tensors",
                             "), which ships it exactly"));
  }
  if (!stage.to_size.empty() && stage.to_bits > 0) {
    throw RecipeError(
        StrCat(stage.id, ".to_size: found it beside ", stage.id, ".to_bits; want one of the two"));
  }
}

}  // namespace tern::recipe
