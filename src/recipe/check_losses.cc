// See check_losses.h.
#include "recipe/check_losses.h"

#include <algorithm>

#include "base/error.h"

namespace tern::recipe {
namespace {

bool IsUsed(const LossWeight& weight) { return weight.first > 0 || weight.last > 0; }

struct Named {
  const char* name;
  const LossWeight* weight;
};

}  // namespace

std::vector<std::string> CheckLosses(const Recipe& recipe, const TrainStage& stage) {
  const LossesConfig& l = stage.losses;
  const std::string at = stage.id + ".losses.";
  const Named losses[] = {{"forward_kl", &l.forward_kl.weight},
                          {"reverse_kl", &l.reverse_kl.weight},
                          {"jsd", &l.jsd.weight},
                          {"topk_kl", &l.topk_kl.weight},
                          {"hidden", &l.hidden.weight},
                          {"relations", &l.relations.weight}};
  for (const Named& loss : losses) {
    if (!IsUsed(*loss.weight) || !recipe.teacher.from.empty()) continue;
    throw RecipeError(StrCat(at, loss.name, ".weight: found ", loss.weight->first,
                             " and no teacher to compare with; want teacher: {from: MODEL}"));
  }
  if (!UsesTeacher(l) && !IsUsed(l.cross_entropy)) {
    throw RecipeError(
        StrCat(at, "cross_entropy.weight: found 0 and no other loss; want one above 0"));
  }
  if (UsesTeacher(l) && l.rows == LossRows::kAll && recipe.data.packing == Packing::kSamples) {
    throw RecipeError(StrCat(at,
                             "rows: found all with data.packing: samples, whose padding would "
                             "count; want labels (with prompts_count: true in data.sources prompts "
                             "have one), or packing: documents"));
  }
  const bool features = IsUsed(l.hidden.weight) || IsUsed(l.relations.weight);
  if (features && stage.activation_checkpointing == ActivationCheckpointing::kBlock) {
    throw RecipeError(StrCat(stage.id,
                             ".activation_checkpointing: found block, which keeps nothing of what "
                             "losses.hidden and losses.relations compare; want none"));
  }
  const bool known = recipe.model.vocab_size > 0;
  if (IsUsed(l.topk_kl.weight) && known && l.topk_k >= recipe.model.vocab_size) {
    throw RecipeError(StrCat(at, "topk_kl.k = ", l.topk_k, " is not below the vocabulary of ",
                             recipe.model.vocab_size, "; want forward_kl, or a smaller k"));
  }
  if (!recipe.teacher_store.empty()) {
    for (const Named& loss : losses) {
      if (!IsUsed(*loss.weight) || loss.weight == &l.topk_kl.weight) continue;
      throw RecipeError(StrCat(at, loss.name, ".weight: found ", loss.weight->first,
                               " beside teacher.store, which keeps the teacher's top k only; want "
                               "topk_kl, or no store"));
    }
  }
  std::vector<std::string> warnings;
  const bool used = std::any_of(recipe.stages.begin(), recipe.stages.end(), [](const Stage& other) {
    const auto* train = std::get_if<TrainStage>(&other);
    const auto* eval = std::get_if<EvalStage>(&other);
    return (train != nullptr && UsesTeacher(train->losses)) || (eval != nullptr && eval->recovery);
  });
  if (!recipe.teacher.from.empty() && !used) {
    warnings.push_back(StrCat(stage.id, ": no loss compares with the teacher ", recipe.teacher.from,
                              "; set ", at, "forward_kl.weight"));
  }
  return warnings;
}

}  // namespace tern::recipe
