// The tasks that are known by name, one line each: what their questions are, how many examples come
// first, which answers count. A name that is not here is the name of a task file; its kind is told
// by its keys.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tasks/task_file.h"

namespace tern::tasks {

struct TaskInfo {
  std::string name;
  TaskKind kind = TaskKind::kChoice;
  int fewshot = 0;          // Examples before a question, unless --fewshot says otherwise
  const char* metric = "";  // The one that is quoted
  const char* about = "";   // For help
  int64_t max_new_tokens = 256;
  std::vector<std::string> stop;  // Of generated answers
  bool numbers = false;           // Answers are numbers out of worked ones (GSM8K)
};

// Names of all known tasks, in the order of help.
std::vector<std::string> KnownTasks();
// One line each, for help.
std::string TasksHelp();
// Throws UsageError for a name with a character other than letters, digits, '_', '-' and '.', or
// that begins with '.': it becomes a file name. `kind` is the file's, of names that are not known.
TaskInfo InfoOf(const std::string& name);
// Throws InputError when a task known by name has a file of another kind. Fills in what the kind of
// a task that is not known by name says.
void CheckKind(TaskInfo* info, TaskKind kind, const std::string& path);

}  // namespace tern::tasks
