// See check_parallel.h.
#include "recipe/check_parallel.h"

#include "base/error.h"

namespace tern::recipe {
namespace {

// What tensor parallelism is not there for yet, in this recipe; empty: nothing.
std::string NotWithTensor(const Recipe& recipe) {
  if (recipe.parallel.shard == Sharding::kZero3)
    return "parallel.shard: zero3 (zero1 and zero2 are)";
  if (recipe.parallel.shard_size > 0) return "parallel.shard_size";
  if (!recipe.start.from.empty()) return "model.from";
  for (const Stage& stage : recipe.stages) {
    const auto* train = std::get_if<TrainStage>(&stage);
    if (train == nullptr) continue;
    const std::string what = TrainedByWholeModels(*train);
    if (!what.empty()) return StrCat(train->id, ".", what);
  }
  return "";
}

void CheckTensor(const Recipe& recipe, bool shape_is_known) {
  const int64_t tensor = recipe.parallel.tensor;
  if (tensor == 1) return;
  const std::string missing = NotWithTensor(recipe);
  if (!missing.empty()) {
    throw RecipeError(StrCat("parallel.tensor: found ", tensor, " together with ", missing,
                             ", which this version cannot do; want parallel.tensor: 1, or the "
                             "recipe without it"));
  }
  if (!shape_is_known) return;
  const ModelConfig& model = recipe.model;
  const auto divides = [&](const char* key, const char* what, int64_t count) {
    if (count % tensor == 0) return;
    throw RecipeError(StrCat("parallel.tensor: found ", tensor, ", which does not divide ", key,
                             " = ", count, "; ", what, " so want a divisor of it"));
  };
  divides("model.num_kv_heads",
          "every rank takes whole key/value heads with the query heads that read them,",
          model.num_kv_heads);
  divides("model.intermediate_size", "every rank takes as many columns of the FFN,",
          model.intermediate_size);
}

}  // namespace

std::string TrainedByWholeModels(const TrainStage& stage) {
  if (stage.lora.rank > 0) return "lora";
  if (!stage.freeze.empty()) return "freeze";
  if (!stage.quantize.rules.empty() || stage.quantize.warmup_steps > 0) return "quantize";
  return IsPlain(stage.losses) ? "" : "losses";
}

bool HasLateGradients(const TrainStage& stage) {
  return stage.lora.rank > 0 || !stage.quantize.rules.empty();
}

void CheckParallel(const Recipe& recipe, bool shape_is_known) {
  if (recipe.parallel.shard == Sharding::kZero3 && recipe.model.linear != LinearKind::kBitLinear) {
    throw RecipeError(
        "parallel.shard: zero3 spreads the latents of BitLinear layers, and model.linear is "
        "dense; want zero2, which spreads gradients and optimizer state");
  }
  const int64_t size = recipe.parallel.shard_size;
  if (size > 0 && recipe.parallel.shard == Sharding::kNone) {
    throw RecipeError(StrCat("parallel.shard_size: found ", size,
                             " with parallel.shard: none, which spreads nothing; want zero1, "
                             "zero2 or zero3, or shard_size: 0"));
  }
  if (size == 1) {
    throw RecipeError(
        "parallel.shard_size: found 1, groups of one rank, which spread nothing; want 2 or more, "
        "or parallel.shard: none");
  }
  if (recipe.parallel.first_step_timeout_s < recipe.parallel.step_timeout_s) {
    throw RecipeError(
        StrCat("parallel.first_step_timeout_s = ", recipe.parallel.first_step_timeout_s,
               " is below parallel.step_timeout_s = ", recipe.parallel.step_timeout_s,
               "; the first step takes at least as long as the others"));
  }
  CheckTensor(recipe, shape_is_known);
}

}  // namespace tern::recipe
