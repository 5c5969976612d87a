// Local task files: one question a line, as JSON with the keys of docs/tasks.md, in JSONL (also
// .zst). A file holds questions of one kind, which its keys tell. Nothing is guessed: an unknown
// key, a missing one, a value of another type or out of range is an error with file and line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tern::tasks {

enum class TaskKind {
  kPerplexity,    // A text; no task file
  kChoice,        // Which of some continuations is the most probable
  kContinuation,  // How probable one continuation is, and whether the model would write it
  kGenerate,      // An answer in text, extracted and compared
  kCode,          // A program that must pass tests
};

struct TaskItem {
  std::string id;     // May be empty
  std::string group;  // Subject, for averages; few-shot examples come from the same group
  std::string preamble;
  // kChoice: one context with several choices, or as many contexts with one continuation.
  // kContinuation: one of each. kGenerate, kCode: the prompt is the one context.
  std::vector<std::string> contexts, choices;
  std::string delimiter;          // Between context and choice, or prompt and answer of an example
  int64_t gold = 0;               // Of kChoice
  std::string answer;             // Of kGenerate
  std::string test, entry_point;  // Of kCode

  // Choices a model picks from.
  size_t num_choices() const { return contexts.size() > 1 ? contexts.size() : choices.size(); }
  const std::string& context(size_t choice) const {
    return contexts[contexts.size() > 1 ? choice : 0];
  }
  const std::string& choice(size_t choice) const {
    return choices[contexts.size() > 1 ? 0 : choice];
  }
};

inline constexpr int64_t kMaxItems = 1'000'000;
inline constexpr int64_t kMaxItemBytes = int64_t{1} << 20;
inline constexpr size_t kMaxChoices = 64;

struct TaskFile {
  TaskKind kind = TaskKind::kChoice;
  std::vector<TaskItem> items;
  std::string sha256;  // Of the file
};

// Throws InputError (cannot be read, no questions), FormatError (file:line, key, found, wanted).
TaskFile ReadTaskFile(const std::string& path);

// One question as the line that gives it back.
std::string TaskLine(TaskKind kind, const TaskItem& item);

// The question with its answer, as a few-shot example.
std::string ExampleText(TaskKind kind, const TaskItem& item);
// preamble + examples, each followed by an empty line: what goes before the question's own context.
std::string FewShotText(TaskKind kind, const TaskItem& item,
                        const std::vector<const TaskItem*>& examples);

}  // namespace tern::tasks
