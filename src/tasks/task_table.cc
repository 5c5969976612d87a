// See task_table.h. Formats and stops as lm-evaluation-harness 0.4.13 has them.
#include "tasks/task_table.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace tern::tasks {
namespace {

struct Row {
  const char* name;
  TaskKind kind;
  int fewshot;
  const char* metric;
  const char* about;
};

constexpr Row kTable[] = {
    {"perplexity", TaskKind::kPerplexity, 0, "perplexity", "of a text"},
    {"arc_easy", TaskKind::kChoice, 0, "acc_norm", "school science, easy (Clark et al. 2018)"},
    {"arc_challenge", TaskKind::kChoice, 0, "acc_norm", "school science, hard (Clark et al. 2018)"},
    {"hellaswag", TaskKind::kChoice, 0, "acc_norm", "how a scene goes on (Zellers et al. 2019)"},
    {"mmlu", TaskKind::kChoice, 5, "acc", "57 subjects, letters (Hendrycks et al. 2021)"},
    {"piqa", TaskKind::kChoice, 0, "acc_norm", "everyday physics (Bisk et al. 2020)"},
    {"winogrande", TaskKind::kChoice, 0, "acc", "pronouns (Sakaguchi et al. 2020)"},
    {"boolq", TaskKind::kChoice, 0, "acc", "yes or no from a passage (Clark et al. 2019)"},
    {"openbookqa", TaskKind::kChoice, 0, "acc_norm", "elementary facts (Mihaylov et al. 2018)"},
    {"lambada", TaskKind::kContinuation, 0, "acc", "the last word (Paperno et al. 2016)"},
    {"gsm8k", TaskKind::kGenerate, 5, "strict_match", "worked sums (Cobbe et al. 2021)"},
    {"humaneval", TaskKind::kCode, 0, "pass@1", "Python functions, run (Chen et al. 2021)"},
};

const char* MetricOf(TaskKind kind) {
  switch (kind) {
    case TaskKind::kPerplexity:
      return "perplexity";
    case TaskKind::kChoice:
    case TaskKind::kContinuation:
      return "acc";
    case TaskKind::kGenerate:
      return "exact_match";
    case TaskKind::kCode:
      return "pass@1";
  }
  __builtin_unreachable();
}

const Row* Find(const std::string& name) {
  for (const Row& row : kTable)
    if (name == row.name) return &row;
  return nullptr;
}

}  // namespace

std::vector<std::string> KnownTasks() {
  std::vector<std::string> names;
  for (const Row& row : kTable) names.emplace_back(row.name);
  return names;
}

std::string TasksHelp() {
  std::string help;
  for (const Row& row : kTable)
    help += StrCat("  ", row.name, std::string(15 - std::string_view(row.name).size(), ' '),
                   row.about, ", ", row.fewshot, " examples first\n");
  return help;
}

TaskInfo InfoOf(const std::string& name) {
  const bool plain =
      !name.empty() && name[0] != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return std::isalnum(c) || c == '_' || c == '-' || c == '.';
      });
  if (!plain)
    throw UsageError(StrCat("\"", name, "\" is no name of a task; there are\n", TasksHelp(),
                            "and every NAME with a file NAME.jsonl in the folder of --data"));
  TaskInfo info;
  info.name = name;
  if (const Row* row = Find(name)) {
    info.kind = row->kind;
    info.fewshot = row->fewshot;
    info.metric = row->metric;
    info.about = row->about;
  }
  if (name == "gsm8k") {
    info.stop = {"Question:", "</s>", "<|im_end|>"};
    info.numbers = true;
  } else if (info.kind == TaskKind::kCode) {
    info.stop = {"\nclass", "\ndef", "\n#", "\nif", "\nprint"};
    info.max_new_tokens = 1024;
  }
  return info;
}

void CheckKind(TaskInfo* info, TaskKind kind, const std::string& path) {
  if (const Row* row = Find(info->name)) {
    TERN_CHECK_INPUT(row->kind == kind, path, " has questions of another kind than ", info->name,
                     "; --import ", info->name, " makes its task file (docs/tasks.md)");
    return;
  }
  info->kind = kind;
  info->metric = MetricOf(kind);
  if (kind == TaskKind::kGenerate) info->stop = {"\n\n"};
  if (kind == TaskKind::kCode) {
    info->stop = InfoOf("humaneval").stop;
    info->max_new_tokens = InfoOf("humaneval").max_new_tokens;
  }
}

}  // namespace tern::tasks
