// See read_visitor.h.
#include "recipe/read_visitor.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "recipe/explain.h"
#include "recipe/list_visitor.h"

namespace tern::recipe {
namespace {

constexpr size_t kMaxNameBytes = 100;  // Names of folders

[[noreturn]] void Fail(const Node& node, const std::string& path, const std::string& found,
                       const std::string& want) {
  throw RecipeError(StrCat(node.origin, ": ", path, ": found ", found, "; want ", want));
}

std::string Shown(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kScalar:
      return StrCat(node.quoted ? "the text \"" : "\"", node.text, '"');
    case Node::Kind::kList:
      return "a list";
    case Node::Kind::kMap:
      return "a map";
  }
  __builtin_unreachable();
}

std::string Range(const Meta& meta) {
  const std::string unit = *meta.unit != '\0' ? StrCat(" ", meta.unit) : "";
  if (std::isinf(meta.low) && std::isinf(meta.high)) return unit;
  return StrCat(" from ", ShortNumber(meta.low), " to ", ShortNumber(meta.high), unit);
}

bool InRange(double value, const Meta& meta) { return value >= meta.low && value <= meta.high; }

template <class Number>
bool ParseNumber(const Node& node, Number* out) {
  const std::string& text = node.text;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return !node.quoted && error == std::errc() && end == text.data() + text.size();
}

// What other frameworks have by such a key, and this version has not.
std::string NotThere(const std::string& path) {
  if (path == "parallel.sequence" || path == "parallel.context") {
    return "; one sequence is not split among ranks in this version: want "
           "train.activation_checkpointing: block, a lower train.micro_batch, or parallel.tensor";
  }
  if (path == "parallel.pipeline") {
    return "; layers are not spread over ranks in this version: want parallel.shard: zero3 or "
           "parallel.tensor";
  }
  return "";
}

}  // namespace

std::string Nearest(const std::string& word, const std::vector<std::string>& names) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& name : names) {
    std::vector<size_t> row(name.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= name.size(); ++j) {
        const size_t replaced = diagonal + (word[i - 1] == name[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = name;
    }
  }
  return best;
}

ReadVisitor::ReadVisitor(const Node& node, std::string path, Origins* origins,
                         std::vector<std::string> skip)
    : origins_(origins) {
  if (node.kind != Node::Kind::kMap)
    Fail(node, path.empty() ? "the recipe" : path, Shown(node), "a map of keys");
  levels_.push_back({&node, std::move(path), std::move(skip)});
}

std::string ReadVisitor::PathOf(const std::string& key) const {
  return levels_.back().path.empty() ? key : StrCat(levels_.back().path, ".", key);
}

const Node* ReadVisitor::Take(const char* key) {
  levels_.back().known.push_back(key);
  return levels_.back().node != nullptr ? levels_.back().node->Find(key) : nullptr;
}

void ReadVisitor::CheckOptional(const char* key, const std::string& want, const Meta& meta) const {
  if (!meta.required) return;
  auto level = levels_.end();
  do --level;
  while (level->node == nullptr);  // The outermost map is always there.
  throw RecipeError(StrCat(level->node->origin, ": ", PathOf(key), ": missing; want ", want));
}

const Node* ReadVisitor::TakeScalar(const char* key, const char* want) {
  const Node* node = Take(key);
  (*origins_)[PathOf(key)] = node != nullptr ? node->origin : "default";
  if (node != nullptr && node->kind != Node::Kind::kScalar)
    Fail(*node, PathOf(key), Shown(*node), want);
  return node;
}

void ReadVisitor::Int(const char* key, int64_t& value, const Meta& meta) {
  const Node* node = TakeScalar(key, "a whole number");
  if (node == nullptr) return CheckOptional(key, StrCat("a whole number", Range(meta)), meta);
  int64_t number = 0;
  if (!ParseNumber(*node, &number) || !InRange(static_cast<double>(number), meta)) {
    Fail(*node, PathOf(key), Shown(*node), StrCat("a whole number", Range(meta)));
  }
  value = number;
}

void ReadVisitor::Real(const char* key, double& value, const Meta& meta) {
  const Node* node = TakeScalar(key, "a number");
  if (node == nullptr) return CheckOptional(key, StrCat("a number", Range(meta)), meta);
  double number = 0;
  if (!ParseNumber(*node, &number) || !std::isfinite(number) || !InRange(number, meta)) {
    Fail(*node, PathOf(key), Shown(*node), StrCat("a number", Range(meta)));
  }
  value = number;
}

void ReadVisitor::Flag(const char* key, bool& value, const Meta&) {
  const Node* node = TakeScalar(key, "true or false");
  if (node == nullptr) return;
  if (node->quoted || (node->text != "true" && node->text != "false"))
    Fail(*node, PathOf(key), Shown(*node), "true or false");
  value = node->text == "true";
}

void ReadVisitor::Text(const char* key, std::string& value, const Meta& meta) {
  const Node* node = TakeScalar(key, "text");
  if (node == nullptr) return CheckOptional(key, "text", meta);
  value = node->text;
}

void ReadVisitor::Texts(const char* key, std::vector<std::string>& value, const Meta& meta) {
  const Node* node = Take(key);
  (*origins_)[PathOf(key)] = node != nullptr ? node->origin : "default";
  if (node == nullptr) return CheckOptional(key, "a list, such as [a, b]", meta);
  if (node->kind != Node::Kind::kList)
    Fail(*node, PathOf(key), Shown(*node), "a list, such as [a, b]");
  value.clear();
  for (const Node& item : node->items) {
    if (item.kind != Node::Kind::kScalar) Fail(item, PathOf(key), Shown(item), "text");
    value.push_back(item.text);
  }
}

void ReadVisitor::Choice(const char* key, int& index, ChoiceNames names, const Meta&) {
  const Node* node = TakeScalar(key, "a word");
  if (node == nullptr) return;
  const auto found = std::find(names.begin(), names.end(), node->text);
  if (found == names.end()) {
    std::string list;
    for (const char* name : names) list += StrCat(list.empty() ? "" : " | ", name);
    const std::string near = Nearest(node->text, {names.begin(), names.end()});
    Fail(*node, PathOf(key), Shown(*node),
         list + (near.empty() ? "" : StrCat("; did you mean ", near, "?")));
  }
  index = static_cast<int>(found - names.begin());
}

std::vector<std::string> ReadVisitor::Names(const char* key, std::vector<std::string>,
                                            const Meta&) {
  const Node* node = Take(key);
  if (node == nullptr) return {};
  if (node->kind != Node::Kind::kMap)
    Fail(*node, PathOf(key), Shown(*node), "a map of names, such as {web: {files: [a.jsonl]}}");
  std::vector<std::string> names;
  for (const auto& [name, value] : node->fields) {
    const bool plain = !name.empty() && name.size() <= kMaxNameBytes &&
                       std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return std::isalnum(c) != 0 || c == '_' || c == '-';
                       });
    if (!plain) {
      throw RecipeError(StrCat(value.origin, ": ", PathOf(key), ": found the name \"", name,
                               "\"; want up to ", kMaxNameBytes, " letters, digits, _ and -"));
    }
    names.push_back(name);
  }
  return names;
}

void ReadVisitor::Enter(const char* key, const Meta&) {
  const std::string path = PathOf(key);
  const Node* node = Take(key);
  if (node != nullptr && node->kind != Node::Kind::kMap)
    Fail(*node, path, Shown(*node), "a map of keys");
  levels_.push_back({node, path, {}});
}

void ReadVisitor::Leave() {
  CheckUnknown(levels_.back());
  levels_.pop_back();
}

void ReadVisitor::CheckUnknown(const Level& level) const {
  if (level.node == nullptr) return;
  for (const auto& [key, value] : level.node->fields) {
    if (std::find(level.known.begin(), level.known.end(), key) != level.known.end()) continue;
    const std::string path = level.path.empty() ? key : StrCat(level.path, ".", key);
    std::string hint;
    if (const std::string near = Nearest(key, level.known); !near.empty()) {
      hint = StrCat("; did you mean ", near, "?");
    }
    if (const std::string home = WhereKeyBelongs(key); !home.empty()) {
      hint = StrCat("; ", key, " belongs under ", home);
    }
    if (const std::string missing = NotThere(path); !missing.empty()) hint = missing;
    std::vector<std::string> known = level.known;
    std::sort(known.begin(), known.end());
    std::string list;
    for (const std::string& name : known) list += StrCat(list.empty() ? "" : ", ", name);
    throw RecipeError(
        StrCat(value.origin, ": ", path, ": unknown key", hint, ". Keys here: ", list));
  }
}

}  // namespace tern::recipe
