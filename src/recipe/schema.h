// The one description of every recipe key: name, place in the structs, range or choices, unit, and
// why one would set it. Reading, writing, explaining, documenting and comparing recipes are
// visitors over it, so a key exists for all of them or for none. To add a key: a member in recipe.h
// and one line in schema.cc.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "recipe/recipe.h"

namespace tern::recipe {

struct Meta {
  const char* why;  // One line
  const char* unit = "";
  double low = -std::numeric_limits<double>::infinity();  // Allowed range of numbers, ends included
  double high = std::numeric_limits<double>::infinity();
  bool may_change = false;  // Between two starts of one run, without an error
  bool required = false;    // Has no default
};

using ChoiceNames = std::span<const char* const>;

class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void Int(const char* key, int64_t& value, const Meta& meta) = 0;
  virtual void Real(const char* key, double& value, const Meta& meta) = 0;
  virtual void Flag(const char* key, bool& value, const Meta& meta) = 0;
  virtual void Text(const char* key, std::string& value, const Meta& meta) = 0;
  virtual void Texts(const char* key, std::vector<std::string>& value, const Meta& meta) = 0;
  virtual void Choice(const char* key, int& index, ChoiceNames names, const Meta& meta) = 0;
  // The keys of the map `key`, which the user chooses; `names` are those of the structs. Whoever
  // reads a recipe returns what the file has, all others return `names`. Enter and Leave follow
  // unless there are none.
  virtual std::vector<std::string> Names(const char* key, std::vector<std::string> names,
                                         const Meta& meta) = 0;
  // A map below the current one.
  virtual void Enter(const char* key, const Meta& meta) = 0;
  virtual void Leave() = 0;
};

// Visit the keys of one map in their documented order. Describe(Recipe) leaves the stages out: they
// are a list.
void Describe(FieldVisitor& visitor, Recipe& recipe);
void Describe(FieldVisitor& visitor, Stage& stage);
// The parts of a recipe that other stages depend on.
void DescribeModel(FieldVisitor& visitor, Recipe& recipe);
void DescribeData(FieldVisitor& visitor, Recipe& recipe);

// What may stand beside model.from: the rest is the model's own.
std::span<const char* const> KeysBesideFrom();

// Stage kinds in the order of Stage's alternatives: "prepare", "train", ...
std::span<const char* const> StageKinds();
const char* KindOf(const Stage& stage);
std::string& IdOf(Stage& stage);
const std::string& IdOf(const Stage& stage);
// Of the stages before that of the id, those of kind T (TrainStage, ...), in the recipe's order.
template <typename T>
std::vector<const T*> StagesBefore(const Recipe& recipe, const std::string& id) {
  std::vector<const T*> before;
  for (const Stage& stage : recipe.stages) {
    if (IdOf(stage) == id) break;
    if (const T* of_kind = std::get_if<T>(&stage)) before.push_back(of_kind);
  }
  return before;
}
// The last of them; null: there is none.
template <typename T>
const T* StageBefore(const Recipe& recipe, const std::string& id) {
  const std::vector<const T*> before = StagesBefore<T>(recipe, id);
  return before.empty() ? nullptr : before.back();
}
// A stage of that kind with its defaults. REQUIRES: a name of StageKinds().
Stage MakeStage(const std::string& kind);

}  // namespace tern::recipe
