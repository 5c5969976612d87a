// See fingerprint.h.
#include "recipe/fingerprint.h"

#include <cstdlib>
#include <type_traits>

#include "base/error.h"
#include "recipe/list_visitor.h"

namespace tern::recipe {
namespace {

void Add(const std::vector<ListedField>& fields, const std::string& prefix, Fingerprint* out) {
  for (const ListedField& field : fields) {
    const bool wanted = field.path == prefix || field.path.starts_with(prefix + ".");
    if (wanted && !field.is_map && !field.meta.may_change) (*out)[field.path] = field.value;
  }
}

bool OnlyMoreSteps(const std::string& key, const std::string& before, const std::string& now) {
  return key.ends_with(".steps") && std::atoll(now.c_str()) > std::atoll(before.c_str());
}

}  // namespace

Fingerprint FingerprintOf(const Recipe& recipe, const Stage& stage) {
  Fingerprint out;
  Add(ListStage(stage), IdOf(stage), &out);
  const bool prepares = std::holds_alternative<PrepareStage>(stage),
             trains = std::holds_alternative<TrainStage>(stage);
  if (prepares || trains) {
    Add(ListRecipe(recipe), "data", &out);
    Add(ListRecipe(recipe), "seed", &out);
  }
  if (trains) Add(ListRecipe(recipe), "model", &out);
  // By content: a model may move, but not become another.
  if ((prepares || trains) && !recipe.start.from.empty())
    out["model.from_sha256"] = recipe.start.sha256;
  const auto* train = std::get_if<TrainStage>(&stage);
  const bool taught = train != nullptr && UsesTeacher(train->losses);
  if (taught || (prepares && recipe.teacher.gives_tokenizer))
    out["teacher.from_sha256"] = recipe.teacher.sha256;
  // Other numbers than libtorch's. Only where it is not the default: runs of before the key go on.
  if (taught && recipe.teacher_runtime == Runtime::kEngine) out["teacher.runtime"] = "engine";
  return out;
}

Fingerprint WithNewKeys(const Fingerprint& before, const Fingerprint& now, const Stage& stage) {
  Stage defaults =
      std::visit([](const auto& s) { return Stage(std::remove_cvref_t<decltype(s)>{}); }, stage);
  IdOf(defaults) = IdOf(stage);
  if (auto* train = std::get_if<TrainStage>(&defaults)) {
    for (const QuantizeRule& rule : std::get<TrainStage>(stage).quantize.rules) {
      const bool was_there =
          before.contains(StrCat(IdOf(stage), ".quantize.rules.", rule.name, ".weights"));
      if (was_there) train->quantize.rules.emplace_back().name = rule.name;
    }
  }
  Fingerprint out = before;
  for (const auto& [key, value] : FingerprintOf(Recipe{}, defaults)) {
    if (now.contains(key)) out.emplace(key, value);
  }
  return out;
}

std::vector<std::string> Differences(const Fingerprint& before, const Fingerprint& now) {
  std::vector<std::string> differences;
  for (const auto& [key, value] : now) {
    const auto old = before.find(key);
    if (old == before.end()) {
      differences.push_back(StrCat(key, ": is new, ", value));
    } else if (old->second != value && !OnlyMoreSteps(key, old->second, value)) {
      differences.push_back(StrCat(key, ": was ", old->second, ", now ", value));
    }
  }
  for (const auto& [key, value] : before) {
    if (!now.contains(key)) differences.push_back(StrCat(key, ": was ", value, ", is gone"));
  }
  return differences;
}

}  // namespace tern::recipe
