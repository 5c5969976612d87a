// One record of a dataset as a question (import.h): fields with their types checked, and the
// importer of each task.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tasks/task_file.h"

namespace tern::tasks {

// The fields of a record. Throws FormatError (where, field, found, wanted). Both must outlive this.
class RecordFields {
 public:
  RecordFields(const nlohmann::json& record, const std::string& where)
      : record_(record), where_(where) {}

  bool Has(const char* field) const;
  std::string Text(const char* field) const;
  std::vector<std::string> Texts(const char* field) const;
  // A whole number, also as text ("3"), or true and false; in [0, count).
  int64_t Index(const char* field, int64_t count) const;
  RecordFields Object(const char* field) const;
  const nlohmann::json& record() const { return record_; }
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& At(const char* field) const;

  const nlohmann::json& record_;
  const std::string& where_;
};

struct Importer {
  const char* task;
  TaskKind kind;
  TaskItem (*convert)(const RecordFields& record);
};

// Throws UsageError that names all there are.
const Importer& ImporterOf(const std::string& task);

}  // namespace tern::tasks
