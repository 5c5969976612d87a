// Fills recipe structs from a tree: strict about types, ranges, missing and unknown keys. An error
// names file, line and column of the key, its path, what was found and what is wanted. Rules
// across keys are not here but in check.h.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "recipe/schema.h"
#include "recipe/tree.h"

namespace tern::recipe {

// Origin of each value by key path ("train.schedule.peak_lr" -> "file:line:column" | "command line"
// | "default").
using Origins = std::map<std::string, std::string>;

class ReadVisitor : public FieldVisitor {
 public:
  // `path` is the key path of `node`, empty for the recipe itself. `skip`: keys that the caller
  // handles.
  ReadVisitor(const Node& node, std::string path, Origins* origins,
              std::vector<std::string> skip = {});

  void Int(const char* key, int64_t& value, const Meta& meta) override;
  void Real(const char* key, double& value, const Meta& meta) override;
  void Flag(const char* key, bool& value, const Meta& meta) override;
  void Text(const char* key, std::string& value, const Meta& meta) override;
  void Texts(const char* key, std::vector<std::string>& value, const Meta& meta) override;
  void Choice(const char* key, int& index, ChoiceNames names, const Meta& meta) override;
  std::vector<std::string> Names(const char* key, std::vector<std::string> names,
                                 const Meta& meta) override;
  void Enter(const char* key, const Meta& meta) override;
  void Leave() override;

  // Throws RecipeError for the first key of the outermost map that was not visited.
  void Finish() { CheckUnknown(levels_.front()); }

 private:
  struct Level {
    const Node* node;  // Null: the map is absent, everything below keeps its default
    std::string path;
    std::vector<std::string> known;
  };
  // The value of `key`, or null when absent; notes its origin and that the key is known.
  const Node* Take(const char* key);
  const Node* TakeScalar(const char* key, const char* want);
  // Throws for an absent key that has no default.
  void CheckOptional(const char* key, const std::string& want, const Meta& meta) const;
  void CheckUnknown(const Level& level) const;
  std::string PathOf(const std::string& key) const;

  Origins* origins_;
  std::vector<Level> levels_;
};

// The nearest of `names` to `word` by edit distance, or empty when none is near.
std::string Nearest(const std::string& word, const std::vector<std::string>& names);

}  // namespace tern::recipe
