// Flattens structs into a list of keys with their values as YAML text: the basis of resolved
// recipes, explanations, fingerprints and the reference page.
#pragma once

#include <string>
#include <vector>

#include "recipe/schema.h"

namespace tern::recipe {

struct ListedField {
  std::string path;   // "train.schedule.peak_lr"
  std::string value;  // As YAML; empty for a map
  std::string type;  // "whole number", "number", "true | false", "text", "list", "a | b | c", "map"
  Meta meta;
  int depth = 0;  // 0: key of the outermost map
  bool is_map = false;
};

class ListVisitor : public FieldVisitor {
 public:
  explicit ListVisitor(std::string path) { paths_.push_back(std::move(path)); }

  void Int(const char* key, int64_t& value, const Meta& meta) override;
  void Real(const char* key, double& value, const Meta& meta) override;
  void Flag(const char* key, bool& value, const Meta& meta) override;
  void Text(const char* key, std::string& value, const Meta& meta) override;
  void Texts(const char* key, std::vector<std::string>& value, const Meta& meta) override;
  void Choice(const char* key, int& index, ChoiceNames names, const Meta& meta) override;
  std::vector<std::string> Names(const char* key, std::vector<std::string> names,
                                 const Meta& meta) override;
  void Enter(const char* key, const Meta& meta) override;
  void Leave() override { paths_.pop_back(); }

  const std::vector<ListedField>& fields() const { return fields_; }

 private:
  void Add(const char* key, std::string value, std::string type, const Meta& meta);

  std::vector<std::string> paths_;
  std::vector<ListedField> fields_;
};

// Shortest decimal that reads back to the same number, whole numbers up to 2^53 without an
// exponent.
std::string ShortNumber(double value);

// Keys of the recipe without its stages, and of one stage (paths begin with its id).
std::vector<ListedField> ListRecipe(const Recipe& recipe);
std::vector<ListedField> ListStage(const Stage& stage);

}  // namespace tern::recipe
