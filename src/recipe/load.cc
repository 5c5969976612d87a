// See load.h.
#include "recipe/load.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "recipe/schema.h"
#include "recipe/tree.h"

namespace tern::recipe {
namespace {

namespace fs = std::filesystem;

// Keys and stage kinds of the design that this version does not have.
constexpr const char* kLaterStages[] = {"import", "quantize", "prune"};

std::string ConfigsFolder(const std::string& recipe_path) {
  if (const char* folder = std::getenv("TERN_CONFIGS")) return folder;
  for (fs::path at = fs::absolute(recipe_path).parent_path();; at = at.parent_path()) {
    if (fs::is_directory(at / "configs")) return (at / "configs").string();
    if (at == at.parent_path()) return "configs";
  }
}

// The stage list's item of that id, or null.
Node* FindStage(Node& root, const std::string& id) {
  Node* stages = root.Find("stages");
  if (stages == nullptr) return nullptr;
  for (Node& item : stages->items) {
    if (item.kind != Node::Kind::kMap || item.fields.size() != 1) continue;
    auto& [kind, body] = item.fields.front();
    const Node* given = body.Find("id");
    if ((given != nullptr ? given->text : kind) == id) return &body;
  }
  return nullptr;
}

// One "a.b.c=value" merged into the tree.
void ApplyOverride(Node& root, const std::string& override) {
  const size_t equals = override.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw RecipeError(StrCat("command line: found ", override, "; want key=value, such as train.steps=100"));
  }
  const std::string path = override.substr(0, equals), origin = "command line";
  Node value = ParseValue(override.substr(equals + 1), origin);
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    parts.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  Node* target = &root;
  size_t first = 0;
  if (Node* stage = FindStage(root, parts[0]); stage != nullptr && parts.size() > 1) {
    target = stage;
    first = 1;
  }
  Node over = std::move(value);
  for (size_t i = parts.size(); i-- > first;) {
    Node wrapped;
    wrapped.origin = origin;
    wrapped.fields.emplace_back(parts[i], std::move(over));
    over = std::move(wrapped);
  }
  MergeInto(*target, over);
}

void CheckParallel(const Node& root) {
  const Node* parallel = root.Find("parallel");
  if (parallel == nullptr) return;
  const bool plain = parallel->kind == Node::Kind::kMap &&
                     std::all_of(parallel->fields.begin(), parallel->fields.end(), [](const auto& field) {
                       return field.first == "data" && field.second.text == "auto";
                     });
  if (!plain) {
    throw RecipeError(StrCat(parallel->origin, ": parallel: this version runs one process; want {data: auto}"));
  }
}

Stage ReadStage(const Node& item, Origins* origins) {
  if (item.kind != Node::Kind::kMap || item.fields.size() != 1) {
    throw RecipeError(StrCat(item.origin, ": stages: want one kind a list item, such as - train: {steps: 100}"));
  }
  const auto& [kind, body] = item.fields.front();
  const std::vector<std::string> kinds(StageKinds().begin(), StageKinds().end());
  if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) {
    const bool later = std::find(std::begin(kLaterStages), std::end(kLaterStages), kind) != std::end(kLaterStages);
    const std::string near = Nearest(kind, kinds);
    throw RecipeError(StrCat(body.origin, ": stages: ",
                             later ? StrCat("the stage ", kind, " is not in this version")
                                   : StrCat("unknown stage ", kind, near.empty() ? "" : StrCat("; did you mean ", near, "?")),
                             ". Stages: prepare, train, eval, export, verify, generate, report"));
  }
  Stage stage = MakeStage(kind);
  const Node* id = body.Find("id");
  ReadVisitor reader(body, id != nullptr ? id->text : kind, origins);
  Describe(reader, stage);
  reader.Finish();
  return stage;
}

}  // namespace

LoadedRecipe LoadRecipe(const std::string& path, const std::vector<std::string>& overrides) {
  LoadedRecipe loaded;
  loaded.path = path;
  Node root = ReadTree(path);
  if (root.kind != Node::Kind::kMap) throw RecipeError(StrCat(path, ": a recipe is a map of keys"));
  ResolveUses(root, ConfigsFolder(path));
  for (const std::string& override : overrides) ApplyOverride(root, override);
  ResolveUses(root, ConfigsFolder(path));   // An override may name a part, too.
  if (const Node* teacher = root.Find("teacher")) {
    throw RecipeError(StrCat(teacher->origin, ": teacher: distillation is not in this version"));
  }
  CheckParallel(root);
  ReadVisitor reader(root, "", &loaded.origins, {"stages", "parallel"});
  Describe(reader, loaded.recipe);
  reader.Finish();
  if (loaded.recipe.name.empty()) throw RecipeError(StrCat(path, ": name: missing; it names the run folder"));
  const Node* stages = root.Find("stages");
  if (stages == nullptr || stages->kind != Node::Kind::kList || stages->items.empty()) {
    throw RecipeError(StrCat(stages != nullptr ? stages->origin : path, ": stages: want a list with at least one stage"));
  }
  for (const Node& item : stages->items) loaded.recipe.stages.push_back(ReadStage(item, &loaded.origins));
  loaded.recipe.model.vocab_size = loaded.recipe.data.tokenizer.vocab_size;
  return loaded;
}

}  // namespace tern::recipe
