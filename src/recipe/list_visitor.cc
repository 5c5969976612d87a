// See list_visitor.h.
#include "recipe/list_visitor.h"

#include <charconv>
#include <cmath>

#include "base/error.h"

namespace tern::recipe {
namespace {

// Double-quoted YAML: any text survives.
std::string Quoted(const std::string& text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

void ListVisitor::Add(const char* key, std::string value, std::string type, const Meta& meta) {
  const std::string path = paths_.back().empty() ? key : StrCat(paths_.back(), ".", key);
  fields_.push_back(
      {path, std::move(value), std::move(type), meta, static_cast<int>(paths_.size()) - 1});
}

void ListVisitor::Int(const char* key, int64_t& value, const Meta& meta) {
  Add(key, std::to_string(value), "whole number", meta);
}
void ListVisitor::Real(const char* key, double& value, const Meta& meta) {
  Add(key, ShortNumber(value), "number", meta);
}
void ListVisitor::Flag(const char* key, bool& value, const Meta& meta) {
  Add(key, value ? "true" : "false", "true | false", meta);
}
void ListVisitor::Text(const char* key, std::string& value, const Meta& meta) {
  Add(key, Quoted(value), "text", meta);
}
void ListVisitor::Texts(const char* key, std::vector<std::string>& value, const Meta& meta) {
  std::string list;
  for (const std::string& item : value) list += StrCat(list.empty() ? "" : ", ", Quoted(item));
  Add(key, StrCat("[", list, "]"), "list of text", meta);
}
void ListVisitor::Choice(const char* key, int& index, ChoiceNames names, const Meta& meta) {
  std::string list;
  for (const char* name : names) list += StrCat(list.empty() ? "" : " | ", name);
  Add(key, names[static_cast<size_t>(index)], list, meta);
}
std::vector<std::string> ListVisitor::Names(const char*, std::vector<std::string> names,
                                            const Meta&) {
  return names;
}
void ListVisitor::Enter(const char* key, const Meta& meta) {
  Add(key, "", "map", meta);
  fields_.back().is_map = true;
  paths_.push_back(fields_.back().path);
}

std::string ShortNumber(double value) {
  constexpr double kExactWhole = 9007199254740992.0;  // 2^53
  const bool whole = std::abs(value) <= kExactWhole && value == std::trunc(value);
  if (whole && !std::signbit(value)) return std::to_string(static_cast<int64_t>(value));
  char buffer[64];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, result.ptr};
}

std::vector<ListedField> ListRecipe(const Recipe& recipe) {
  Recipe copy = recipe;
  ListVisitor list("");
  Describe(list, copy);
  return list.fields();
}

std::vector<ListedField> ListStage(const Stage& stage) {
  Stage copy = stage;
  ListVisitor list(IdOf(stage));
  Describe(list, copy);
  return list.fields();
}

}  // namespace tern::recipe
