// A YAML document as a plain tree in which every value knows where it came from. Parts named by
// `use:` and command-line overrides are merged here, before anything is typed. Strict: duplicate
// keys, nulls, tags, non-text keys and a second document are errors.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tern::recipe {

struct Node {
  enum class Kind { kScalar, kList, kMap };
  Kind kind = Kind::kMap;
  std::string text;         // kScalar
  bool quoted = false;      // kScalar written in quotes: text, never a number or a flag
  std::vector<Node> items;  // kList
  std::vector<std::pair<std::string, Node>> fields;  // kMap, in file order
  std::string origin;                                // "file:line:column" or "command line"

  const Node* Find(const std::string& key) const;
  Node* Find(const std::string& key);
};

// Reads a YAML file with one document. Throws RecipeError with file:line:column, InputError when it
// cannot be read; limits: 1 MB, 64 levels, 100,000 values, 1000 keys in a map.
Node ReadTree(const std::string& path);
// The right side of an override ("[a, b]", "3", "text") with the given origin.
Node ParseValue(const std::string& yaml, const std::string& origin);

// `over` wins: maps are merged key by key, everything else is replaced.
void MergeInto(Node& base, const Node& over);

// Replaces every `use: part` (or list of parts) by the parts' content from `configs_folder`, below
// the map's own keys. Throws RecipeError for a missing part, a name that leads out of the folder, a
// cycle, a part that is not a map, or more than 1000 parts.
void ResolveUses(Node& node, const std::string& configs_folder);

}  // namespace tern::recipe
