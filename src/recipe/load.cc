// See load.h.
#include "recipe/load.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "recipe/list_visitor.h"
#include "recipe/schema.h"
#include "recipe/tree.h"

namespace tern::recipe {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCommandLine = "command line";  // Origin of overrides
constexpr size_t kMaxKeyParts = 16;  // Of an override: the schema has 4, and trees are recursive
// Stage kinds of the design that this version does not have.
constexpr const char* kLaterStages[] = {"import", "prune"};

std::string ConfigsFolder(const std::string& recipe_path) {
  if (const char* folder = std::getenv("TERN_CONFIGS")) return folder;
  for (fs::path at = fs::absolute(recipe_path).parent_path();; at = at.parent_path()) {
    if (fs::is_directory(at / "configs")) return (at / "configs").string();
    if (at == at.parent_path()) return "configs";
  }
}

// Keys of the outermost map.
std::vector<std::string> TopKeys() {
  std::vector<std::string> keys = {"stages"};
  for (const ListedField& field : ListRecipe(Recipe{})) {
    if (field.depth == 0) keys.push_back(field.path);
  }
  return keys;
}

bool IsStage(const Node& item) { return item.kind == Node::Kind::kMap && item.fields.size() == 1; }

// The id of a stage: given, or its kind.
std::string IdIn(const Node& item) {
  const auto& [kind, body] = item.fields.front();
  const Node* given = body.Find("id");
  return given != nullptr ? given->text : kind;
}

// The body of the first stage of that id, or null.
Node* FindStage(Node& root, const std::string& id) {
  Node* stages = root.Find("stages");
  if (stages == nullptr) return nullptr;
  for (Node& item : stages->items) {
    if (IsStage(item) && IdIn(item) == id) return &item.fields.front().second;
  }
  return nullptr;
}

// An id stands before the dot of an override and in names of files.
void CheckId(const Node& item) {
  const std::string id = IdIn(item);
  const std::string& origin = item.fields.front().second.origin;
  const bool plain = !id.empty() && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-';
  });
  if (!plain) {
    throw RecipeError(
        StrCat(origin, ": stages: found the id \"", id, "\"; want letters, digits, _ and -"));
  }
  const std::vector<std::string> keys = TopKeys();
  if (std::find(keys.begin(), keys.end(), id) != keys.end()) {
    throw RecipeError(StrCat(origin, ": stages: found the id ", id,
                             ", which is a key of the recipe; want another name"));
  }
}

struct Override {
  std::string text;                // As given
  std::vector<std::string> parts;  // Of the key path
  Node value;
};

Override ParseOverride(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw RecipeError(
        StrCat(kCommandLine, ": found ", text, "; want key=value, such as train.steps=100"));
  }
  const std::string value = text.substr(equals + 1);
  if (value.empty()) {
    throw RecipeError(StrCat(kCommandLine, ": found ", text, " without a value; want one, or '",
                             text, "\"\"' for none"));
  }
  Override result{text, {}, ParseValue(value, kCommandLine)};
  const std::string path = text.substr(0, equals);
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    result.parts.push_back(path.substr(begin, end - begin));
    begin = end + 1;
    if (result.parts.size() > kMaxKeyParts) {
      throw RecipeError(StrCat(kCommandLine, ": ", path.substr(0, begin), "...: found more than ",
                               kMaxKeyParts, " parts of a key"));
    }
  }
  return result;
}

bool HoldsUse(const Node& node) {
  return std::any_of(node.items.begin(), node.items.end(), HoldsUse) ||
         std::any_of(node.fields.begin(), node.fields.end(), [](const auto& field) {
           return field.first == "use" || HoldsUse(field.second);
         });
}

// Names a part, so it must be merged before parts are read.
bool NamesPart(const Override& over) { return over.parts.back() == "use" || HoldsUse(over.value); }

// Refuses a first word that is neither a key of the recipe nor the id of a stage.
void CheckTarget(const Node& root, const Override& over) {
  std::vector<std::string> names = TopKeys();
  std::string ids;
  if (const Node* stages = root.Find("stages"); stages != nullptr) {
    for (const Node& item : stages->items) {
      if (!IsStage(item)) continue;
      names.push_back(IdIn(item));
      ids += StrCat(ids.empty() ? "" : ", ", names.back());
    }
  }
  if (std::find(names.begin(), names.end(), over.parts[0]) != names.end()) return;
  const std::string near = Nearest(over.parts[0], names);
  throw RecipeError(StrCat(kCommandLine, ": ", over.text.substr(0, over.text.find('=')),
                           ": found no key or stage ", over.parts[0],
                           near.empty() ? "" : StrCat("; did you mean ", near, "?"),
                           ". Stages of this recipe: ", ids));
}

// Merges "a.b.c=value" into the tree; the first part may be the id of a stage.
void ApplyOverride(Node& root, const Override& override) {
  CheckTarget(root, override);
  Node* stage = FindStage(root, override.parts[0]);
  Node over = override.value;
  for (size_t i = override.parts.size(); i-- > (stage != nullptr ? 1 : 0);) {
    Node wrapped;
    wrapped.origin = kCommandLine;
    wrapped.fields.emplace_back(override.parts[i], std::move(over));
    over = std::move(wrapped);
  }
  MergeInto(stage != nullptr ? *stage : root, over);
}

// The file with parts and overrides merged.
Node ReadMerged(const std::string& path, const std::vector<std::string>& texts) {
  Node root = ReadTree(path);
  if (root.kind != Node::Kind::kMap) throw RecipeError(StrCat(path, ": a recipe is a map of keys"));
  std::vector<Override> overrides;
  for (const std::string& text : texts) overrides.push_back(ParseOverride(text));
  for (const Override& over : overrides) {
    if (NamesPart(over)) ApplyOverride(root, over);
  }
  ResolveUses(root, ConfigsFolder(path));
  for (const Override& over : overrides) {
    if (!NamesPart(over)) ApplyOverride(root, over);
  }
  return root;
}

// Shape and tokenizer of a model that training starts from are its own.
void CheckStart(const Node& root) {
  const Node* model = root.Find("model");
  const Node* from = model != nullptr ? model->Find("from") : nullptr;
  if (from == nullptr || from->text.empty()) return;
  const auto allowed = KeysBesideFrom();
  for (const auto& [key, value] : model->fields) {
    if (std::find(allowed.begin(), allowed.end(), key) != allowed.end()) continue;
    throw RecipeError(StrCat(value.origin, ": model.", key,
                             ": found beside model.from, whose model says it; want only "
                             "context_length, linear and sub_norms there"));
  }
  const Node* data = root.Find("data");
  const Node* tokenizer = data != nullptr ? data->Find("tokenizer") : nullptr;
  if (tokenizer == nullptr) return;
  throw RecipeError(StrCat(tokenizer->origin,
                           ": data.tokenizer: found beside model.from, whose tokenizer is used; "
                           "want none"));
}

Stage ReadStage(const Node& item, Origins* origins) {
  if (!IsStage(item)) {
    throw RecipeError(
        StrCat(item.origin, ": stages: want one kind a list item, such as - train: {steps: 100}"));
  }
  const auto& [kind, body] = item.fields.front();
  const std::vector<std::string> kinds(StageKinds().begin(), StageKinds().end());
  if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) {
    const bool later =
        std::find(std::begin(kLaterStages), std::end(kLaterStages), kind) != std::end(kLaterStages);
    const std::string near = Nearest(kind, kinds);
    throw RecipeError(StrCat(body.origin, ": stages: ",
                             later
                                 ? StrCat("the stage ", kind, " is not in this version")
                                 : StrCat("unknown stage ", kind,
                                          near.empty() ? "" : StrCat("; did you mean ", near, "?")),
                             ". Stages: prepare, train, eval, export, verify, generate, report"));
  }
  CheckId(item);
  Stage stage = MakeStage(kind);
  ReadVisitor reader(body, IdIn(item), origins);
  Describe(reader, stage);
  reader.Finish();
  return stage;
}

}  // namespace

LoadedRecipe LoadRecipe(const std::string& path, const std::vector<std::string>& overrides) {
  LoadedRecipe loaded;
  loaded.path = path;
  const Node root = ReadMerged(path, overrides);
  CheckStart(root);
  ReadVisitor reader(root, "", &loaded.origins, {"stages"});
  Describe(reader, loaded.recipe);
  reader.Finish();
  const Node* stages = root.Find("stages");
  if (stages == nullptr || stages->kind != Node::Kind::kList || stages->items.empty()) {
    throw RecipeError(StrCat(stages != nullptr ? stages->origin : root.origin,
                             ": stages: want a list with at least one stage"));
  }
  std::set<std::string> ids;
  for (const Node& item : stages->items) {
    loaded.recipe.stages.push_back(ReadStage(item, &loaded.origins));
    const std::string& id = IdOf(loaded.recipe.stages.back());
    if (!ids.insert(id).second) {
      throw RecipeError(StrCat(item.fields.front().second.origin,
                               ": stages: found a second stage with the id ", id,
                               "; want an own one, such as id: ", id, "_2"));
    }
  }
  loaded.recipe.model.vocab_size = loaded.recipe.data.tokenizer.vocab_size;
  return loaded;
}

}  // namespace tern::recipe
