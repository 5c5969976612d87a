// See check_losses.h.
#include "recipe/check_losses.h"

#include <algorithm>

#include "base/error.h"

namespace tern::recipe {
namespace {

// What compares losses wants several.
void CheckGradients(const LossesConfig& l, const std::string& at) {
  if (UsedLosses(l).size() >= 2) return;
  const bool balances = l.balance.by != BalanceBy::kNone;
  if (!balances && l.log_gradients_every == 0) return;
  throw RecipeError(StrCat(at,
                           balances ? "balance.by: found gradient_norm"
                                    : StrCat("log_gradients_every = ", l.log_gradients_every),
                           " and a single loss, with nothing to compare it with; want two losses "
                           "with a weight, or ",
                           balances ? "none" : "0"));
}

// The engine gives logits and nothing from inside of the model.
void CheckEngineTeacher(const Recipe& recipe, const LossesConfig& l, const std::string& at) {
  if (recipe.teacher_runtime != Runtime::kEngine) return;
  if (recipe.teacher.from.empty()) {
    throw RecipeError(
        "teacher.runtime: found engine and no teacher to run; want teacher: {from: MODEL}");
  }
  const auto check = [&](const char* name, const LossWeight& weight) {
    if (!weight.IsUsed()) return;
    throw RecipeError(StrCat(at, name, ".weight: found ", std::max(weight.first, weight.last),
                             " beside teacher.runtime: engine, which gives logits and nothing of "
                             "single blocks; want forward_kl, reverse_kl, jsd or topk_kl in its "
                             "place, or teacher.runtime: libtorch"));
  };
  check("hidden", l.hidden.weight);
  check("relations", l.relations.weight);
  if (l.generated.by == GeneratedBy::kTeacher) {
    throw RecipeError(StrCat(at,
                             "generated.by: found teacher beside teacher.runtime: engine, which "
                             "scores text and writes none here; want by: student, or "
                             "teacher.runtime: libtorch"));
  }
}

void CheckGenerated(const Recipe& recipe, const TrainStage& stage, const std::string& losses) {
  const GeneratedConfig& g = stage.losses.generated;
  if (g.by == GeneratedBy::kNone) return;
  const std::string at = losses + "generated.";
  const char* by = g.by == GeneratedBy::kStudent ? "student" : "teacher";
  if (recipe.teacher.from.empty()) {
    throw RecipeError(StrCat(at, "by: found ", by, " and no teacher; want teacher: {from: MODEL}"));
  }
  if (!recipe.teacher_store.empty()) {
    throw RecipeError(StrCat(at, "by: found ", by,
                             " beside teacher.store, which knows the training data only; want a "
                             "teacher in memory: no store"));
  }
  if (g.by == GeneratedBy::kStudent && !ComparesWithTeacher(stage.losses)) {
    throw RecipeError(
        StrCat(at,
               "by: found student and no loss against the teacher, who scores what "
               "the student writes; want a weight for reverse_kl, jsd or forward_kl"));
  }
  if (g.share == 0) {
    throw RecipeError(StrCat(at, "share: found 0 with by: ", by, "; want above 0, or by: none"));
  }
  if (g.prompt_tokens > stage.sequence_length) {
    throw RecipeError(StrCat(at, "prompt_tokens = ", g.prompt_tokens, " is above ", stage.id,
                             ".sequence_length = ", stage.sequence_length));
  }
  if (g.prompt_tokens == 0 && recipe.data.packing == Packing::kStream) {
    throw RecipeError(StrCat(at,
                             "prompt_tokens: found 0 with data.packing: stream, where every token "
                             "has a label; want how many tokens of a sequence are its prompt"));
  }
}

}  // namespace

std::vector<std::string> CheckLosses(const Recipe& recipe, const TrainStage& stage) {
  const LossesConfig& l = stage.losses;
  const std::string at = stage.id + ".losses.";
  const std::vector<NamedWeight> losses = UsedLosses(l);
  for (const NamedWeight& loss : losses) {
    if (loss.name == kCrossEntropy || !recipe.teacher.from.empty()) continue;
    throw RecipeError(StrCat(at, loss.name, ".weight: found ", loss.weight.first,
                             " and no teacher to compare with; want teacher: {from: MODEL}"));
  }
  if (losses.empty()) {
    throw RecipeError(
        StrCat(at, "cross_entropy.weight: found 0 and no other loss; want one above 0"));
  }
  if (UsesTeacher(l) && l.rows == LossRows::kAll && recipe.data.packing == Packing::kSamples) {
    throw RecipeError(StrCat(at,
                             "rows: found all with data.packing: samples, whose padding would "
                             "count; want labels (with prompts_count: true in data.sources prompts "
                             "have one), or packing: documents"));
  }
  CheckGradients(l, at);
  CheckGenerated(recipe, stage, at);
  CheckEngineTeacher(recipe, l, at);
  const bool features = l.hidden.weight.IsUsed() || l.relations.weight.IsUsed();
  if (features && stage.activation_checkpointing == ActivationCheckpointing::kBlock) {
    throw RecipeError(StrCat(stage.id,
                             ".activation_checkpointing: found block, which keeps nothing of what "
                             "losses.hidden and losses.relations compare; want none"));
  }
  const bool known = recipe.model.vocab_size > 0;
  if (l.topk_kl.weight.IsUsed() && known && l.topk_k >= recipe.model.vocab_size) {
    throw RecipeError(StrCat(at, "topk_kl.k = ", l.topk_k, " is not below the vocabulary of ",
                             recipe.model.vocab_size, "; want forward_kl, or a smaller k"));
  }
  if (!recipe.teacher_store.empty()) {
    const FaultPolicy& faults = stage.faults;
    if (faults.nonfinite == FaultAction::kRollback || faults.spike == FaultAction::kRollback) {
      throw RecipeError(StrCat(stage.id,
                               ".faults: found rollback beside teacher.store: the samples behind a "
                               "rollback are not in the store; want skip or stop, or no store"));
    }
    for (const NamedWeight& loss : losses) {
      if (loss.name == kCrossEntropy || loss.name == "topk_kl") continue;
      throw RecipeError(StrCat(at, loss.name, ".weight: found ", loss.weight.first,
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
